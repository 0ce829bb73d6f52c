//! Lines of a file, plain or compressed with zstd, through one buffer that is used again.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

const BUFFER_BYTES: usize = 256 * 1024;

/// Reads a file line by line.
pub(crate) struct Lines {
    path: PathBuf,
    reader: BufReader<Box<dyn Read + Send>>,
    line: Vec<u8>,
    /// The number of lines read.
    count: u64,
}

impl Lines {
    /// Opens a file; one named `*.zst` is decompressed on the way.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let file: Box<dyn Read + Send> = if path.extension().is_some_and(|extension| extension == "zst") {
            Box::new(zstd::Decoder::new(file).map_err(Error::io("decompress", path))?)
        } else {
            Box::new(file)
        };
        let reader = BufReader::with_capacity(BUFFER_BYTES, file);
        Ok(Lines { path: path.to_path_buf(), reader, line: Vec::new(), count: 0 })
    }
    /// The number of the line that was read last, counted from 1.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }
    /// The next line without its end; None at the end of the file.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<&[u8]>> {
        self.line.clear();
        Ok(if self.append()? { Some(self.line()) } else { None })
    }
    /// Adds the next line, behind a line break, to the one read last. Returns whether there was one.
    pub(crate) fn join_next(&mut self) -> Result<bool> {
        self.line.push(b'\n');
        self.append()
    }
    /// The line read last.
    #[inline]
    pub(crate) fn line(&self) -> &[u8] {
        // A mark of the byte order may stand before the first line.
        if self.count == 1 { self.line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&self.line) } else { &self.line }
    }
    fn append(&mut self) -> Result<bool> {
        let read = self.reader.read_until(b'\n', &mut self.line).map_err(Error::io("read", &self.path))?;
        if read == 0 {
            return Ok(false);
        }
        self.count += 1;
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        }
        if self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        Ok(true)
    }
}
