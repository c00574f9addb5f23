//! Load that changes: shards of on-demand topics follow it.

use std::f64::consts::TAU;
use std::time::Duration;

use super::plot::{Panel, Plot};
use super::world::{Kind, MEGABYTE, World, part};
use super::{hours, minutes};

fn hour(at: Duration) -> f64 {
    at.as_secs_f64() / 3600.0
}

/// From 0 to 1 between two hours.
fn ramp(at: Duration, from: f64, to: f64) -> f64 {
    ((hour(at) - from) / (to - from)).clamp(0.0, 1.0)
}

fn daily_wave(at: Duration, _: usize, index: i32) -> f64 {
    let swing = (1.0 - (hour(at) / 24.0 * TAU).cos()) / 2.0;
    MEGABYTE * (50.0 + 350.0 * swing) * part(index)
}

#[test]
fn shards_follow_a_daily_wave() {
    let mut world = World::new(1, minutes(3), daily_wave);
    world.run_until(hours(72));
    // Two reports: they are three minutes apart.
    world.is_covered_within(minutes(6));
    world.does_not_flap();
    world.keeps_what_was_assigned();
    world.is_in_three_zones();
    let shards = |from: u64, to: u64| {
        let of = world.samples.iter().filter(move |sample| (hours(from)..hours(to)).contains(&sample.at));
        of.map(|sample| sample.shards)
    };
    for day in 0..3 {
        let (from, to) = (hours(24 * day), hours(24 * day + 24));
        let [splits, merges, moves, elections] =
            [Kind::Split, Kind::Merge, Kind::Move, Kind::Election].map(|kind| world.count(kind, from, to));
        let most = shards(24 * day, 24 * day + 24).max().unwrap();
        assert!(splits <= most && merges <= 2 * most, "{splits} splits and {merges} merges for {most} shards");
        assert!(moves + elections <= 2 * most, "{moves} moves, {elections} elections");
        assert!(shards(24 * day + 23, 24 * day + 24).min().unwrap() * 2 < most, "it shrinks at night");
    }
    let plot = Plot {
        title: "A daily wave: an on-demand topic of 64 partitions, six nodes in three zones, three days",
        minutes: (0, 72 * 60),
        panels: vec![Panel::load_and_capacity(&world), Panel::shards(&world)],
    };
    plot.check("daily-wave");
}

fn flash_crowd(at: Duration, _: usize, index: i32) -> f64 {
    let crowd = ramp(at, 0.5, 0.5 + 1.0 / 60.0) - ramp(at, 1.0, 1.0 + 1.0 / 60.0);
    let open = if at < hours(3) { 1.0 } else { 0.0 };
    MEGABYTE * 40.0 * open * (1.0 + 9.0 * crowd) * part(index)
}

#[test]
fn a_flash_crowd_is_followed_at_once_and_forgotten_slowly() {
    let mut world = World::new(1, Duration::from_secs(30), flash_crowd);
    world.run_until(minutes(33));
    let grown = world.own(0).len();
    world.run_until(minutes(60));
    world.is_even(30);
    assert!(world.own(0).len() <= grown + 2, "it is there at once");
    world.run_until(minutes(62));
    let before = world.own(0).len();
    world.run_until(minutes(70));
    assert_eq!(world.own(0).len(), before, "what it was is remembered");
    world.run_until(hours(6));
    world.is_covered_within(Duration::from_secs(15));
    world.does_not_flap();
    world.keeps_what_was_assigned();
    world.is_back_in_the_pool();
    let plot = Plot {
        title: "A flash crowd: ten times the load within a minute, for half an hour; the topic ends after three hours",
        minutes: (0, 300),
        panels: vec![Panel::load_and_capacity(&world), Panel::shards(&world), Panel::nodes(&world)],
    };
    plot.check("flash-crowd");
}

const HOT: i32 = 5;

fn hot_key(at: Duration, _: usize, index: i32) -> f64 {
    let hot = ramp(at, 0.5, 0.6) - ramp(at, 2.5, 2.6);
    MEGABYTE * (100.0 * part(index) + if index == HOT { 70.0 * hot } else { 0.0 })
}

#[test]
fn a_hot_partition_is_alone_and_the_others_are_not_scattered() {
    let mut world = World::new(1, Duration::from_secs(30), hot_key);
    world.run_until(minutes(29));
    let before = world.own(0).len();
    world.run_until(hours(2));
    let topic = world.image().topic("t0").unwrap().clone();
    let hot = topic.route(HOT).unwrap().shard;
    assert_eq!(topic.routed_to(hot).map(|(index, _)| index).collect::<Vec<_>>(), [HOT]);
    assert!(world.own(0).len() <= before + 3, "{before} before");
    world.run_until(hours(6));
    world.is_covered_within(Duration::from_secs(10));
    world.does_not_flap();
    world.keeps_what_was_assigned();
    world.is_even(25);
    let plot = Plot {
        title: "One hot key: a partition of an on-demand topic gets 70 MB/s more for two hours",
        minutes: (0, 240),
        panels: vec![Panel::load_and_capacity(&world), Panel::shards(&world), Panel::nodes(&world)],
    };
    plot.check("hot-key");
}

/// Seven tenths of the load lie on partitions around one place; the place wanders once around in six hours.
fn slow_drift(at: Duration, _: usize, index: i32) -> f64 {
    let centre = 64.0 * ramp(at, 1.0, 7.0);
    let place = f64::from(index % 12) * 64.0 / 12.0 + f64::from(index / 12);
    let away = (place - centre).rem_euclid(64.0).min((centre - place).rem_euclid(64.0));
    MEGABYTE * 200.0 * (0.3 / 64.0 + 0.7 * (-away * away / 128.0).exp() / 20.05)
}

#[test]
fn load_that_wanders_is_followed() {
    let mut world = World::new(1, Duration::from_secs(30), slow_drift);
    world.run_until(hours(9));
    world.is_covered_within(minutes(1));
    world.does_not_flap();
    world.keeps_what_was_assigned();
    world.is_in_three_zones();
    let kinds =
        [Kind::Split, Kind::Merge, Kind::Move, Kind::Election].map(|kind| world.count(kind, hours(1), hours(9)));
    assert!(kinds.iter().sum::<usize>() <= 15 * 8, "at most fifteen steps an hour: {kinds:?}");
    assert_eq!(world.count(Kind::Move, hours(8), hours(9)), 0, "it ends");
    let plot = Plot {
        title: "A slow drift: 200 MB/s wander over the partitions in six hours",
        minutes: (0, 540),
        panels: vec![Panel::load_and_capacity(&world), Panel::shards(&world), Panel::nodes(&world)],
    };
    plot.check("slow-drift");
}

/// Of several topics, which end at the same time.
fn evening(at: Duration, topic: usize, index: i32) -> f64 {
    let day = if at < hours(1) { 80.0 } else { 0.1 * topic as f64 };
    MEGABYTE * day * part(index)
}

#[test]
fn topics_that_end_at_once_are_folded_two_at_a_time() {
    let mut world = World::new(6, Duration::from_secs(30), evening);
    world.run_until(hours(1));
    assert!((0..6).all(|topic| !world.own(topic).is_empty()));
    world.run_until(hours(4));
    world.is_covered_within(Duration::from_secs(10));
    world.does_not_flap();
    world.keeps_what_was_assigned();
    world.is_back_in_the_pool();
}
