//! From the bytes of a serial port to whole lines. A line ends with `\n`, `\r` or both; empty lines are passed over.
use super::DecodeError;

/// Longest line taken; a longer one is garbage or another baud rate.
const MAX_LINE_BYTES: usize = 64 << 10;

/// The line that is being received.
#[derive(Clone, Debug, Default)]
pub struct LineReader {
    bytes: Vec<u8>,
    too_long: bool,
    half: bool,
}

impl LineReader {
    /// The port was opened. Unless it was `silent` at first, the line that comes began before somebody listened: the tail `3.5` of `123.5` looks
    /// like a good value.
    pub fn opened(&mut self, silent: bool) {
        *self = Self { half: !silent, ..Self::default() };
    }

    /// Takes a byte and returns the line that it ends.
    ///
    /// # Errors
    /// [`DecodeError::HalfLine`] for a line that was not heard from its beginning, [`DecodeError::TooLarge`] as soon as a line is too long: there
    /// may be no end of it.
    pub fn push(&mut self, byte: u8) -> Option<Result<Vec<u8>, DecodeError>> {
        match byte {
            b'\n' | b'\r' => self.end(),
            _ if self.too_long => None,
            _ if self.bytes.len() == MAX_LINE_BYTES => {
                self.too_long = true;
                Some(Err(DecodeError::TooLarge))
            }
            _ => {
                self.bytes.push(byte);
                None
            }
        }
    }

    /// The port is gone: what was begun is not completed by what comes next.
    ///
    /// # Errors
    /// [`DecodeError::HalfLine`] if a line was begun.
    pub fn closed(&mut self) -> Result<(), DecodeError> {
        self.half = true;
        self.end().map_or(Ok(()), |line| line.map(drop))
    }

    fn end(&mut self) -> Option<Result<Vec<u8>, DecodeError>> {
        let Self { bytes, too_long, half } = std::mem::take(self);
        if too_long || bytes.trim_ascii().is_empty() {
            return None;
        }
        Some(if half { Err(DecodeError::HalfLine) } else { Ok(bytes) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(silent: bool, bytes: &[u8], expected: &[Result<&str, DecodeError>]) {
        let mut reader = LineReader::default();
        reader.opened(silent);
        let lines: Vec<_> = bytes.iter().filter_map(|byte| reader.push(*byte)).map(|line| line.map(|l| String::from_utf8(l).unwrap())).collect();
        assert_eq!(lines.iter().map(|line| line.as_deref().map_err(|error| *error)).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn lines_end_in_three_ways() {
        check(true, b"a\nb\r\nc\rd\r\re\n\r\nf", &[Ok("a"), Ok("b"), Ok("c"), Ok("d"), Ok("e")]);
    }

    #[test]
    fn what_began_before_the_port_was_opened_is_no_line() {
        check(false, b"3,5;2,5\r\n1;2\r\n", &[Err(DecodeError::HalfLine), Ok("1;2")]);
        check(false, b"\n1;2\n", &[Ok("1;2")]);
        check(false, b"\r\n1;2\n", &[Ok("1;2")]);
    }

    #[test]
    fn a_line_without_end_is_counted_once() {
        check(true, &[b'x'; MAX_LINE_BYTES + 7], &[Err(DecodeError::TooLarge)]);
        check(true, &[&[b'x'; MAX_LINE_BYTES + 7][..], b"\na\n"].concat(), &[Err(DecodeError::TooLarge), Ok("a")]);
    }

    #[test]
    fn a_line_that_was_cut_off_is_counted() {
        let mut reader = LineReader::default();
        assert_eq!(reader.closed(), Ok(()));
        assert!(b"a\n12".iter().filter_map(|byte| reader.push(*byte)).all(|line| line.is_ok()));
        assert_eq!(reader.closed(), Err(DecodeError::HalfLine));
        reader.opened(true);
        assert_eq!(reader.push(b'\n'), None);
    }
}
