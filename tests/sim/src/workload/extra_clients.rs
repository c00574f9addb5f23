//! The clients that only some seeds have.
//!
//! May not know: what they do.

use super::{expiring_commits, members, pipeline, rack_reader, sessions, static_members};
use crate::profile::ExtraClients;
use crate::registry::RACKS;
use crate::world::World;

const MEMBERS_PER_GROUP: u64 = 3;

/// Starts them.
pub(crate) fn start(world: &World, clients: ExtraClients) {
    match clients {
        ExtraClients::Groups => {
            for number in 0..2 * MEMBERS_PER_GROUP {
                let group = format!("members-{}", number / MEMBERS_PER_GROUP);
                world.run_client("member", None, members::member(world.clone(), group, number));
            }
            // Seeds of one node keep the clients that they had before such a node distrusted its clock.
            for number in 0..if world.nodes().count() > 1 { 3 } else { 0 } {
                world.run_client("expiring commits", None, expiring_commits::expiring_commits(world.clone(), number));
            }
            for number in 0..if world.has_static_members() { static_members::MEMBERS } else { 0 } {
                world.run_client("static member", None, static_members::static_member(world.clone(), number));
            }
        }
        ExtraClients::Readers => {
            for node in world.nodes() {
                world.run_client("session", None, sessions::reader(world.clone(), node));
            }
            for number in 0..if world.has_racks() { RACKS } else { 0 } {
                world.run_client("reader in a rack", None, rack_reader::reader(world.clone(), number));
            }
        }
        ExtraClients::Producers => {
            for id in 0..4 {
                world.run_client("pipeline", None, pipeline::pipeline(world.clone(), id));
            }
        }
    }
}
