//! The greatest number (epoch, generation) that was certainly served before an event.

/// (completion, number, operation), ordered; number and operation are those of the greatest so far.
#[derive(Debug, Default)]
pub(super) struct Served(Vec<(u32, u32, u32)>);

impl Served {
    pub(super) fn push(&mut self, completed: u32, number: u32, operation: u32) {
        self.0.push((completed, number, operation));
    }

    /// To be called once, when all is pushed.
    pub(super) fn order(&mut self) {
        self.0.sort_unstable();
        for at in 1..self.0.len() {
            let (_, number, operation) = self.0[at - 1];
            if number > self.0[at].1 {
                (self.0[at].1, self.0[at].2) = (number, operation);
            }
        }
    }

    /// The greatest number served before an event, and by which operation.
    pub(super) fn before(&self, event: u32) -> Option<(u32, u32)> {
        let until = self.0.partition_point(|&(completed, _, _)| completed < event);
        self.0[..until].last().map(|&(_, number, operation)| (number, operation))
    }
}
