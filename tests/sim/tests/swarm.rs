//! The swarm finds what it must, keeps its seeds' word, and tells the same stories.

use gossip_cdn_sim::plant::ENOUGH;
use gossip_cdn_sim::report::{summary, swarm};
use gossip_cdn_sim::story::STORIES;
use gossip_cdn_sim::{Plant, Settings, simulate};

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_gives_others() {
    let settings = Settings { trace: true, seconds: 20, ..Settings::default() };
    let once = simulate(5, &settings);
    assert_eq!(once, simulate(5, &settings));
    assert!(once.transcript.lines().count() > 1000, "something happened");
    assert_ne!(once.transcript, simulate(6, &settings).transcript);
}

#[test]
fn seeds_pass_and_say_the_same_on_any_number_of_threads() {
    let outcomes = swarm(1, 12, &Settings::default(), 2);
    let text = summary(&outcomes, "again");
    assert!(outcomes.iter().all(|outcome| outcome.failure.is_none()), "{text}");
    assert!(outcomes.iter().all(|outcome| outcome.tried >= 100 && outcome.tally.kinds() >= 3), "{text}");
    assert_eq!(text, summary(&swarm(1, 12, &Settings::default(), 1), "again"));
}

#[test]
fn every_planted_bug_is_caught() {
    for plant in Plant::all() {
        assert!(plant.caught().is_some(), "{plant} goes unnoticed for {ENOUGH} seeds");
    }
}

#[test]
fn a_seed_with_too_few_writes_is_a_failure() {
    let outcome = simulate(1, &Settings { writes: 50, ..Settings::default() });
    assert!(outcome.failure.is_some_and(|failure| failure.starts_with("invalid seed")));
}

#[test]
fn a_failure_comes_with_the_command_that_repeats_it() {
    let settings = Settings { plant: Some(Plant::DropTombstones), ..Settings::default() };
    let text = summary(&swarm(3, 1, &settings, 1), "sim --plant drop-tombstones");
    assert!(text.contains("again: sim --plant drop-tombstones --seed 3"), "{text}");
}

#[test]
fn the_stories_are_told_as_they_were() {
    let kept = [include_str!("../transcripts/two_nodes.txt"), include_str!("../transcripts/three_nodes.txt")];
    for (story, kept) in STORIES.into_iter().zip(kept) {
        let told = story.transcript();
        let differs = kept.lines().zip(told.lines()).position(|(kept, told)| kept != told);
        assert!(told == kept, "{} differs from line {differs:?} on; `story --bless` keeps it so:\n{told}", story.name);
    }
}
