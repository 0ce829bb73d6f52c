//! Recorded topics, and plain files of JSON lines.

use std::fs::{File, create_dir_all};
use std::io::{BufWriter, Write};
use std::path::Path;

use crate::Result;

/// Writes the records of one topic to `DIR/<topic>/<partition>.jsonl`.
pub struct TopicWriter {
    partitions: Vec<(BufWriter<File>, u64)>,
}

impl TopicWriter {
    /// Creates the topic's folder and the files of its partitions.
    ///
    /// # Errors
    /// Where they cannot be created.
    pub fn create(dir: &Path, topic: &str, partitions: usize) -> Result<TopicWriter> {
        let folder = dir.join(topic);
        create_dir_all(&folder).map_err(|error| format!("could not create \"{}\": {error}", folder.display()))?;
        let open = |partition: usize| buffered(&folder.join(format!("{partition}.jsonl"))).map(|file| (file, 0));
        Ok(TopicWriter { partitions: (0..partitions.max(1)).map(open).collect::<Result<_>>()? })
    }
    /// Appends a record. Its key, which needs no escapes, decides on the partition; the value is JSON.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write(&mut self, timestamp: i64, key: &str, value: &str) -> Result<()> {
        let count = self.partitions.len() as u64;
        let (file, offset) = &mut self.partitions[(fnv(key.as_bytes()) % count) as usize];
        writeln!(file, r#"{{"offset":{offset},"timestamp":{timestamp},"key":"{key}","value":{value}}}"#)?;
        *offset += 1;
        Ok(())
    }
    /// Writes out what is buffered.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn finish(mut self) -> Result<()> {
        Ok(self.partitions.iter_mut().try_for_each(|(file, _)| file.flush())?)
    }
}

/// A new file, buffered.
///
/// # Errors
/// Where it cannot be created.
pub fn buffered(path: &Path) -> Result<BufWriter<File>> {
    let file = File::create(path).map_err(|error| format!("could not create \"{}\": {error}", path.display()))?;
    Ok(BufWriter::with_capacity(1 << 18, file))
}

/// FNV-1a: which partition a key belongs to.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01B3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stays_in_its_partition_and_offsets_count_up() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut writer = TopicWriter::create(dir.path(), "t", 2).expect("a topic");
        for (index, key) in ["a", "b", "a"].into_iter().enumerate() {
            writer.write(5, key, &format!(r#"{{"i":{index}}}"#)).expect("a record");
        }
        writer.finish().expect("all written");
        let read = |partition| std::fs::read_to_string(dir.path().join(format!("t/{partition}.jsonl"))).expect("a file");
        let of_a = "{\"offset\":0,\"timestamp\":5,\"key\":\"a\",\"value\":{\"i\":0}}\n{\"offset\":1,\"timestamp\":5,\"key\":\"a\",\"value\":{\"i\":2}}\n";
        let of_b = "{\"offset\":0,\"timestamp\":5,\"key\":\"b\",\"value\":{\"i\":1}}\n";
        let (zero, one) = (read(0), read(1));
        assert!((zero == of_a && one == of_b) || (zero == of_b && one == of_a), "{zero} {one}");
    }
}
