//! A browser of a test's own, driven from outside.

use std::future::Future;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fantoccini::{Client, ClientBuilder, Locator};
use gossip_cdn_cluster::PATIENCE;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// How a browser is looked through.
#[derive(Debug, Clone, Copy, Default)]
pub struct Glass {
    /// On a phone, 390 points wide.
    pub phone: bool,
    /// By somebody who prefers the dark.
    pub dark: bool,
    /// By a browser that runs no script of any page.
    pub plain: bool,
}

/// A browser, at no page yet. It ends with its value.
pub struct Browser {
    runtime: Runtime,
    client: Client,
    driver: Child,
}

impl Browser {
    /// A browser on a desk, in the light.
    pub fn start() -> Self {
        Self::through(Glass::default())
    }

    /// A browser at that page.
    pub fn at(url: &str) -> Self {
        let browser = Self::start();
        browser.go(url);
        browser
    }

    /// A browser that is looked through in that way.
    pub fn through(glass: Glass) -> Self {
        let (driver, port) = driver();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // 0 is dark, 1 is light.
        let scheme = format!("--blink-settings=preferredColorScheme={}", u8::from(!glass.dark));
        // Tests run in containers, as root, where there is no sandbox to have and little shared memory.
        let arguments = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,900", scheme.as_str()];
        let mut options = json!({ "args": arguments });
        if glass.phone {
            options["mobileEmulation"] = json!({ "deviceMetrics": { "width": 390, "height": 844, "pixelRatio": 1.0 } });
        }
        if glass.plain {
            options["prefs"] = json!({ "profile.managed_default_content_settings.javascript": 2 });
        }
        let Value::Object(wanted) = json!({ "goog:chromeOptions": options, "unhandledPromptBehavior": "ignore" }) else { unreachable!() };
        let mut builder = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new());
        let address = format!("http://127.0.0.1:{port}");
        let client = runtime.block_on(builder.capabilities(wanted).connect(&address)).expect("a browser starts");
        Self { runtime, client, driver }
    }

    fn wait<T, E: std::fmt::Debug>(&self, work: impl Future<Output = Result<T, E>>) -> T {
        self.runtime.block_on(work).unwrap()
    }

    /// Goes to a page. A fragment alone does not load a page anew, so an empty one comes between.
    pub fn go(&self, url: &str) {
        self.wait(self.client.goto("about:blank"));
        self.wait(self.client.goto(url));
    }

    /// Runs a function body in the page.
    pub fn js(&self, script: &str, arguments: Vec<Value>) -> Value {
        self.wait(self.client.execute(script, arguments))
    }

    /// The same; the last argument is the function to call with the result.
    pub fn js_later(&self, script: &str) -> Value {
        self.wait(self.client.execute_async(script, vec![]))
    }

    /// Waits until an expression holds in the page.
    pub fn eventually(&self, what: &str, expression: &str) {
        let start = Instant::now();
        while self.js(&format!("return Boolean({expression})"), vec![]) != true {
            assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}; the page says: {}", self.text("body"));
            // A timer is made inside its runtime.
            self.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(50)).await });
        }
    }

    /// Waits until what a selector finds says that text.
    pub fn says(&self, selector: &str, text: &str) {
        let find =
            format!("[...document.querySelectorAll({})].some((found) => found.innerText.includes({}))", json!(selector), json!(text));
        self.eventually(&format!("{selector} says {text:?}"), &find);
    }

    /// What the first that a selector finds says; nothing if there is none.
    pub fn text(&self, selector: &str) -> String {
        let found = self.js("return document.querySelector(arguments[0])?.innerText ?? ''", vec![json!(selector)]);
        found.as_str().unwrap().to_owned()
    }

    /// Waits until what a selector finds says that text, as a driver sees it: no script of the page is needed.
    pub fn reads(&self, selector: &str, text: &str) {
        let start = Instant::now();
        let read = || {
            self.runtime
                .block_on(async { self.client.find(Locator::Css(selector)).await?.text().await })
                .is_ok_and(|said| said.contains(text))
        };
        while !read() {
            assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {selector} says {text:?}");
            self.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(50)).await });
        }
    }

    /// How many a selector finds.
    pub fn count(&self, selector: &str) -> u64 {
        self.js("return document.querySelectorAll(arguments[0]).length", vec![json!(selector)]).as_u64().unwrap()
    }

    /// Clicks, as a finger does, on the first thing with that text that can be pressed, when it is there.
    pub fn press(&self, text: &str) {
        let path = format!("//*[self::button or self::a or self::label or self::summary][normalize-space(.)={}]", quoted(text));
        self.wait(async {
            let found = self.client.wait().at_most(PATIENCE).for_element(Locator::XPath(&path)).await?;
            found.click().await
        });
    }

    /// Types into what a selector finds; for a file picker, paths.
    pub fn type_into(&self, selector: &str, text: &str) {
        self.wait(async {
            let found = self.client.wait().at_most(PATIENCE).for_element(Locator::Css(selector)).await?;
            found.send_keys(text).await
        });
    }

    /// Whether a dialog of the browser itself is open, such as one of `alert`.
    pub fn is_alarmed(&self) -> bool {
        self.runtime.block_on(self.client.get_alert_text()).is_ok()
    }

    /// The address shown.
    pub fn address(&self) -> String {
        self.wait(self.client.current_url()).to_string()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended already, and a test that fails has its own words.
        drop(self.runtime.block_on(self.client.clone().close()));
        drop(self.driver.kill());
        drop(self.driver.wait());
    }
}

/// A driver, and the port it listens on. It picks one of its own that is free for one family of addresses; where it is not for the other it ends,
/// and the next picks another.
fn driver() -> (Child, u16) {
    let start = || {
        let mut command = Command::new("chromedriver");
        let started = command.arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut driver = started.expect("chromedriver starts: it is in the package chromium-driver, and tests/run installs it");
        let port = port(&mut driver);
        if port.is_none() {
            drop(driver.wait());
        }
        port.map(|port| (driver, port))
    };
    std::iter::repeat_with(start).take(5).flatten().next().expect("a driver says where it listens")
}

/// The port that a driver says it listens on; `None`: it has ended. The rest of what it says is read and dropped, or it would stop.
fn port(driver: &mut Child) -> Option<u16> {
    let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines().map_while(Result::ok);
    let port = lines.by_ref().find_map(|line| line.split_once("successfully on port ")?.1.trim_end_matches('.').parse().ok());
    std::thread::spawn(move || lines.for_each(drop));
    port
}

/// A text as XPath writes it, which knows no escapes.
fn quoted(text: &str) -> String {
    assert!(!text.contains('"'), "{text}");
    format!("\"{text}\"")
}
