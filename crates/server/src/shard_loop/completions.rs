//! What the ring has read and written for clients.

use super::connections::Place;
use super::{SMALL_WEIGHT, ShardLoop};
use crate::clock;
use crate::machine::ShardMachine;
use crate::ring::{Completion, Ring};
use types::Instant;

impl<M: ShardMachine> ShardLoop<M> {
    /// Takes off the completions of replies that are out, where their connections have nothing to do before more comes.
    pub(super) fn pass_sent(&mut self) {
        let now = self.woke_at;
        let mut completions = std::mem::take(&mut self.completions);
        completions.retain(|completion| {
            let Completion::Sent { key, result } = *completion else { return true };
            let Some(at) = self.connections.place_of(key) else { return true };
            let Place { connection: Some(connection), weight, .. } = &mut self.connections.places[at] else {
                return true;
            };
            // A weight is reckoned anew where it may be much less now.
            !(*weight < SMALL_WEIGHT && connection.was_sent_whole(now, result))
        });
        self.completions = completions;
    }

    /// What the ring has read and written.
    pub(super) fn take_completions(&mut self) {
        let mut completions = std::mem::take(&mut self.completions);
        let connections = &mut self.connections;
        let small = self.small_first.sort(&mut completions, |key, turn| connections.is_its_first(key, turn));
        // After the bytes, as `Connection::run` has it: all of them lie in the buffers by now.
        let mut now = clock::now();
        for (number, completion) in completions.drain(..).enumerate() {
            if number == small && small > 0 {
                self.send_early(now);
                now = clock::now();
            }
            let Some(key) = completion.key() else { continue };
            let Some(ring) = &mut self.ring else { break };
            let at = self.connections.place_of(key);
            let place = at.map(|at| &mut self.connections.places[at]);
            let (Some(at), Some(Place { connection: Some(connection), .. })) = (at, place) else {
                ring.completed_in_grave(completion);
                continue;
            };
            let alive = match completion {
                Completion::Received { buffer, result, more, .. } => {
                    ring.received(connection, more);
                    if let Some(buffer) = buffer {
                        self.parts.stats.begin(now, connection.input_bytes());
                        connection.received(now, &mut self.parts.machine, ring.bytes(buffer));
                        now = now.max(connection.ran_at());
                        ring.give_back(buffer);
                    } else if result == 0 {
                        connection.input_ended();
                    }
                    self.parts.stats.turn(connection.ran_at());
                    result >= 0 || Ring::is_passing(result)
                }
                Completion::Sent { result, .. } => {
                    connection.flight.sending = false;
                    connection.was_sent(now, result).is_ok()
                }
                Completion::Broken { result, .. } => !Ring::is_broken(connection, result),
                Completion::Watched => true,
            };
            if !alive {
                self.close(at);
                continue;
            }
            if connection.is_held() {
                self.held.push(at);
            }
            self.weigh(at);
            self.touch(at);
        }
        self.completions = completions;
    }

    /// Sends the replies that are there before a turn has ended.
    fn send_early(&mut self, now: Instant) {
        // A connection that parts ends with its reply, and more of it may have come.
        if self.part_until.is_some() {
            return;
        }
        self.write_connections(now);
        if let Some(ring) = &mut self.ring {
            ring.submit();
        }
    }
}
