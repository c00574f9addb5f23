//! Nodes that go and come while the load goes on.

use std::time::Duration;

use ottla_protocol::ids::NodeId;

use super::plot::{Panel, Plot};
use super::world::{Kind, MEGABYTE, World, part};
use super::{hours, minutes};

/// 200 MB/s, and half as much again from 70 minutes on to three hours.
fn busy(at: Duration, _: usize, index: i32) -> f64 {
    let minute = at.as_secs_f64() / 60.0;
    let more = ((minute - 70.0) / 30.0).clamp(0.0, 1.0) - ((minute - 180.0) / 30.0).clamp(0.0, 1.0);
    MEGABYTE * (200.0 + 100.0 * more) * part(index)
}

#[test]
fn a_zone_that_is_lost_for_an_hour_moves_nothing() {
    let mut world = World::new(1, minutes(1), busy);
    world.run_until(hours(1));
    world.is_even(25);
    world.fence("zone-2", true);
    world.run_until(hours(2));
    assert_eq!(world.count(Kind::Move, hours(1), hours(2)), 0, "the others have replicas of all shards");
    assert!(world.count(Kind::Split, hours(1), hours(2)) > 0, "shards are split as ever");
    world.fence("zone-2", false);
    world.run_until(hours(5));
    world.is_covered_within(Duration::from_secs(10));
    world.does_not_flap();
    world.keeps_what_was_assigned();
    world.is_in_three_zones();
    world.is_even(25);
    let plot = Plot {
        title: "A zone is lost after one hour and back after two, while the load grows",
        minutes: (0, 300),
        panels: vec![Panel::load_and_capacity(&world), Panel::nodes(&world)],
    };
    plot.check("zone-lost");
}

#[test]
fn a_zone_that_was_given_up_has_its_replicas_again_when_it_is_back() {
    let mut world = World::new(1, minutes(1), busy);
    world.run_until(hours(1));
    world.drain("zone-2", true);
    world.run_until(hours(2));
    let emptied = world.image().nodes.values().filter(|record| record.rack.as_deref() == Some("zone-2"));
    let held: Vec<_> = emptied.map(|record| world.held(record.id)).collect();
    assert_eq!(held, [0, 0]);
    world.drain("zone-2", false);
    world.run_until(hours(5));
    world.does_not_flap();
    world.is_in_three_zones();
    world.is_even(30);
}

#[test]
fn a_node_that_joins_under_load_gets_its_share() {
    let mut world = World::new(1, Duration::from_secs(30), busy);
    world.run_until(minutes(30));
    world.join(7, "zone-1");
    let mean = (1..=6).map(|node| world.held(NodeId(node))).sum::<usize>() / 7;
    world.run_until(hours(4));
    assert!(world.held(NodeId(7)) + 2 >= mean, "{} of {mean}", world.held(NodeId(7)));
    assert!(world.count(Kind::Move, minutes(30), hours(4)) <= mean + 2, "no more is moved than it gets");
    world.is_covered_within(Duration::from_secs(10));
    world.does_not_flap();
    world.keeps_what_was_assigned();
    world.is_in_three_zones();
    world.is_even(30);
    let plot = Plot {
        title: "A seventh node joins after half an hour",
        minutes: (0, 120),
        panels: vec![Panel::nodes(&world)],
    };
    plot.check("node-joins");
}

#[test]
fn a_node_that_joins_while_a_zone_is_lost_waits_for_it() {
    let mut world = World::new(1, minutes(1), busy);
    world.run_until(minutes(20));
    world.fence("zone-2", true);
    world.join(7, "zone-1");
    world.run_until(hours(1));
    assert_eq!((world.count(Kind::Move, minutes(20), hours(1)), world.held(NodeId(7))), (0, 0));
    world.fence("zone-2", false);
    world.run_until(hours(3));
    world.does_not_flap();
    world.is_in_three_zones();
    assert!(world.held(NodeId(7)) >= 6);
}
