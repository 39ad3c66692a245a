//! What Kafka refused for good: kept here for a person to look at, newest files only. Its loss is named in a gap; this is not a buffer.
use std::{fs, io, path::PathBuf};

use hark_protocol::topics::LaneName;
use serde_json::{Value, json};

use super::message::Message;
use crate::buffer::Position;

const FILES: usize = 100;
const BYTES: u64 = 4 << 20;

/// `<data>/refused/`.
#[derive(Clone, Debug)]
pub struct Refused {
    dir: PathBuf,
}

impl Refused {
    /// In the data directory `dir`.
    pub fn new(dir: &std::path::Path) -> Self {
        Self { dir: dir.join("refused") }
    }

    /// Keeps `message`, with what was said of it, and drops the oldest beyond the limits.
    ///
    /// # Errors
    /// What the disk says; nothing depends on the file.
    pub fn keep(&self, lane: LaneName, position: Position, message: &Message, said: &str) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let text = String::from_utf8_lossy(&message.value);
        let value = serde_json::from_str(&text).unwrap_or_else(|_| Value::from(&*text));
        let content = json!({ "topic": &*message.topic, "key": &*message.key, "inc": &*message.inc, "said": said, "value": value });
        // Names sort by position: incarnations are ordered, and so are seqs.
        let name = format!("{:010}-{:020}-{lane}.json", position.ordinal, position.seq);
        fs::write(self.dir.join(name), content.to_string())?;
        self.trim()
    }

    fn trim(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            files.push((entry.path(), entry.metadata()?.len()));
        }
        files.sort();
        let mut kept = 0;
        for (newer, (path, bytes)) in files.iter().rev().enumerate() {
            kept += bytes;
            if newer > 0 && (newer >= FILES || kept > BYTES) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &std::path::Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir.join("refused")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_newest_are_kept_within_the_limits() {
        let dir = tempfile::tempdir().unwrap();
        let refused = Refused::new(dir.path());
        let keep = |seq, bytes: usize| {
            let message = Message { value: vec![b'7'; bytes], ..Message::example() };
            refused.keep(LaneName::Inputs, Position { ordinal: 1, seq }, &message, "too large").unwrap();
        };
        (1..=FILES as u64 + 5).for_each(|seq| keep(seq, 10));
        let kept = names(dir.path());
        assert_eq!((kept.len(), &*kept[0]), (FILES, "0000000001-00000000000000000006-inputs.json"));
        let text = fs::read_to_string(dir.path().join("refused").join(&kept[0])).unwrap();
        assert!(text.contains("\"said\":\"too large\"") && text.contains("7777777777"), "{text}");
        keep(200, 3 << 20);
        keep(201, 3 << 20);
        assert_eq!(names(dir.path()).len(), 1, "one file in any case, more only within the bytes");
    }
}
