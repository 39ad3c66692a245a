//! Comparing two clocks over a line with delay: four stamps, as in NTP (RFC 5905 section 8).

/// How far a node's clock is ahead, and how long the exchange was under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetAndDelay {
    /// Node time minus gateway time, microseconds; exact if both ways take equally long, wrong by at most half of `delay_us` otherwise.
    pub offset_us: i64,
    /// Time on the line, both ways, microseconds. The sample with the smallest delay is the best; a negative one means that a clock jumped.
    pub delay_us: i64,
}

/// Offset ((T2-T1)+(T3-T4))/2 and delay (T4-T1)-(T3-T2) from T1 gateway sends, T2 node receives, T3 node sends, T4 gateway receives.
/// All in microseconds; the two clocks may have any origin. Results beyond the range of `i64` saturate.
pub fn offset_and_delay(t1_us: u64, t2_us: u64, t3_us: u64, t4_us: u64) -> OffsetAndDelay {
    let [t1, t2, t3, t4] = [t1_us, t2_us, t3_us, t4_us].map(i128::from);
    OffsetAndDelay { offset_us: saturate(((t2 - t1) + (t3 - t4)).div_euclid(2)), delay_us: saturate((t4 - t1) - (t3 - t2)) }
}

fn saturate(value_us: i128) -> i64 {
    value_us.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stamps: [u64; 4], offset_us: i64, delay_us: i64) {
        let [t1, t2, t3, t4] = stamps;
        assert_eq!(offset_and_delay(t1, t2, t3, t4), OffsetAndDelay { offset_us, delay_us }, "{stamps:?}");
    }

    #[test]
    fn four_stamps_give_offset_and_delay() {
        check([1_000, 1_500, 1_600, 1_300], 400, 200); // node 400 us ahead, 100 us each way
        check([1_000_000, 250, 350, 1_000_300], -999_850, 200); // node counts from its start
        check([0, 300, 300, 400], 100, 400); // uneven ways: offset 0 is seen as 100, within half the delay
        check([10, 10, 30, 20], 5, -10); // the node's clock jumped: the delay says so
        check([0, u64::MAX, u64::MAX, 0], i64::MAX, 0);
    }
}
