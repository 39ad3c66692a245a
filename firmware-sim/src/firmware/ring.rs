//! Between the sampling interrupt and the main loop: a fixed ring that never makes the interrupt wait.
use heapless::Deque;

/// Samples that wait for the main loop. When it is full the newest sample is lost and counted: the interrupt cannot wait.
#[derive(Debug, Default)]
pub struct SampleRing<const N: usize> {
    samples: Deque<i16, N>,
    overruns: u32,
}

impl<const N: usize> SampleRing<N> {
    /// An empty ring.
    pub const fn new() -> Self {
        Self { samples: Deque::new(), overruns: 0 }
    }

    /// Interrupt side: stores a sample or counts its loss.
    pub fn push(&mut self, sample: i16) {
        if self.samples.push_back(sample).is_err() {
            self.overruns = self.overruns.saturating_add(1);
        }
    }

    /// Main loop side: the oldest sample.
    pub fn pop(&mut self) -> Option<i16> {
        self.samples.pop_front()
    }

    /// Samples lost since the start.
    pub fn overruns(&self) -> u32 {
        self.overruns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_ring_counts_what_it_cannot_hold() {
        let mut ring = SampleRing::<4>::new();
        for sample in 0..7 {
            ring.push(sample);
        }
        assert_eq!(ring.overruns(), 3);
        assert_eq!([ring.pop(), ring.pop(), ring.pop(), ring.pop(), ring.pop()], [Some(0), Some(1), Some(2), Some(3), None]);
    }
}
