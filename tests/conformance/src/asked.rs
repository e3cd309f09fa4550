//! Requests for a file: conditions and ranges of every form, drawn by dice, with validators that each server fills in with its own.

use std::time::{Duration, SystemTime};

use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;

/// How large the files are that are asked for.
pub(crate) const SIZES: [usize; 4] = [0, 1, 1000, 200_000];

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: &'static str,
    /// Which of [`SIZES`].
    pub(crate) file: usize,
    pub(crate) if_match: Option<Tag>,
    pub(crate) if_none_match: Option<Tag>,
    pub(crate) if_modified_since: Option<Date>,
    pub(crate) if_unmodified_since: Option<Date>,
    pub(crate) range: Option<String>,
    pub(crate) if_range: Option<Validator>,
}

/// What stands where entity tags are expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tag {
    /// The file's.
    Own,
    /// The file's, called weak.
    OwnWeak,
    /// Another file's.
    Other,
    /// Another file's, and behind it the file's.
    List,
    Star,
    /// No entity tag.
    Malformed,
}

/// What stands where a date is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Date {
    /// When the file was changed last.
    Same,
    Before,
    After,
    /// No date.
    Malformed,
}

/// What stands in `If-Range`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Validator {
    Tag(Tag),
    Date(Date),
}

/// What a server says of a file.
#[derive(Debug, Clone)]
pub(crate) struct Validators {
    pub(crate) tag: String,
    pub(crate) modified: SystemTime,
}

impl Tag {
    fn value(self, own: &Validators) -> String {
        let tag = &own.tag;
        match self {
            Self::Own => tag.clone(),
            Self::OwnWeak => format!("W/{tag}"),
            Self::Other => "\"other\"".into(),
            Self::List => format!("\"other\" , {tag}"),
            Self::Star => "*".into(),
            Self::Malformed => "b3-unquoted".into(),
        }
    }
}

impl Date {
    fn value(self, own: &Validators) -> String {
        let hour = Duration::from_secs(3600);
        match self {
            Self::Same => httpdate::fmt_http_date(own.modified),
            Self::Before => httpdate::fmt_http_date(own.modified - hour),
            Self::After => httpdate::fmt_http_date(own.modified + hour),
            Self::Malformed => "yesterday".into(),
        }
    }
}

impl Asked {
    /// The size of what is asked for.
    pub(crate) fn size(&self) -> usize {
        SIZES[self.file]
    }

    /// The headers for a server that says this of the file.
    pub(crate) fn headers(&self, own: &Validators) -> Vec<(&'static str, String)> {
        let if_range = self.if_range.map(|validator| match validator {
            Validator::Tag(tag) => tag.value(own),
            Validator::Date(date) => date.value(own),
        });
        let fields = [
            ("if-match", self.if_match.map(|tag| tag.value(own))),
            ("if-none-match", self.if_none_match.map(|tag| tag.value(own))),
            ("if-modified-since", self.if_modified_since.map(|date| date.value(own))),
            ("if-unmodified-since", self.if_unmodified_since.map(|date| date.value(own))),
            ("range", self.range.clone()),
            ("if-range", if_range),
        ];
        fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

fn tag() -> impl Strategy<Value = Tag> {
    select(vec![Tag::Own, Tag::OwnWeak, Tag::Other, Tag::List, Tag::Star, Tag::Malformed])
}

fn date() -> impl Strategy<Value = Date> {
    select(vec![Date::Same, Date::Before, Date::After, Date::Malformed])
}

/// A place in a file of that size or behind it, often at an edge.
fn place(size: usize) -> impl Strategy<Value = String> {
    let edges = vec![0, 1, size / 2, size.saturating_sub(1), size, size + 1];
    prop_oneof![
        4 => select(edges).prop_map(|place| place.to_string()),
        4 => (0..=size).prop_map(|place| place.to_string()),
        1 => Just("99999999999999999999999".to_owned()),
    ]
}

/// One range of a list.
fn range(size: usize) -> impl Strategy<Value = String> {
    prop_oneof![
        6 => (place(size), place(size)).prop_map(|(first, last)| format!("{first}-{last}")),
        3 => place(size).prop_map(|first| format!("{first}-")),
        3 => place(size).prop_map(|suffix| format!("-{suffix}")),
        1 => select(vec!["-", "x-y", "5", "1-2-3", "--1", "+1-2", "0x1-2"]).prop_map(str::to_owned),
        1 => Just(String::new()),
    ]
}

fn ranges(size: usize) -> impl Strategy<Value = String> {
    let unit = prop_oneof![20 => Just("bytes="), 1 => Just("Bytes="), 1 => Just("bytes ="), 1 => Just("lines="), 1 => Just("bytes:")];
    let count = prop_oneof![8 => Just(1..=1usize), 4 => Just(2..=4), 1 => Just(17..=20)];
    let list = count.prop_flat_map(move |count| prop::collection::vec(range(size), count));
    (unit, list, select(vec![",", ", ", " ,"])).prop_map(|(unit, list, comma)| format!("{unit}{}", list.join(comma)))
}

/// Requests of every kind.
pub(crate) fn any_request() -> impl Strategy<Value = Asked> {
    let validator = prop_oneof![tag().prop_map(Validator::Tag), date().prop_map(Validator::Date)];
    let conditions = (weighted(0.2, tag()), weighted(0.2, tag()), weighted(0.2, date()), weighted(0.2, date()));
    let file = (0..SIZES.len()).prop_flat_map(|file| (Just(file), weighted(0.7, ranges(SIZES[file]))));
    (select(vec!["GET", "GET", "GET", "HEAD"]), file, conditions, weighted(0.2, validator)).prop_map(
        |(method, (file, range), (if_match, if_none_match, if_modified_since, if_unmodified_since), if_range)| Asked {
            method,
            file,
            if_match,
            if_none_match,
            if_modified_since,
            if_unmodified_since,
            range,
            if_range,
        },
    )
}
