//! The bytes of an Avro message, piece by piece. Whatever they are, reading ends with a value or a reason.

/// Why bytes are not what their schema says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken(pub(super) String);

/// Reads bytes from front to back.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Cursor { bytes, at: 0 }
    }
    /// How many bytes were read.
    pub(super) fn at(&self) -> usize {
        self.at
    }
    /// How many bytes are left.
    pub(super) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }
    /// What was read since `start`.
    pub(super) fn since(&self, start: usize) -> &'a [u8] {
        &self.bytes[start..self.at]
    }
    /// The next `count` bytes.
    #[inline]
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Broken> {
        if count > self.left() {
            return Err(self.cut_off());
        }
        self.at += count;
        Ok(&self.bytes[self.at - count..self.at])
    }
    fn cut_off(&self) -> Broken {
        Broken(format!("the message is cut off: it ends after {} bytes, in the middle of a value", self.bytes.len()))
    }
    /// A `long`: seven bits a byte, the lowest first, the sign in the lowest bit.
    #[inline]
    pub(super) fn long(&mut self) -> Result<i64, Broken> {
        let mut word = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.take(1)?[0];
            let bits = u64::from(byte & 0x7F);
            if shift == 63 && bits > 1 {
                break;
            }
            word |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok((word >> 1) as i64 ^ -((word & 1) as i64));
            }
        }
        Err(Broken("a number is longer than 64 bits".into()))
    }
    /// An `int`.
    pub(super) fn int(&mut self) -> Result<i64, Broken> {
        let value = self.long()?;
        if i32::try_from(value).is_ok() { Ok(value) } else { Err(Broken("an int is longer than 32 bits".into())) }
    }
    /// A length, and that many bytes.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Broken> {
        let length = self.long()?;
        match usize::try_from(length) {
            Ok(length) => self.take(length),
            Err(_) => Err(Broken(format!("a length is {length}"))),
        }
    }
    /// A length, and that many bytes of text.
    pub(super) fn text(&mut self) -> Result<&'a str, Broken> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Broken("a string is not UTF-8".into()))
    }
    /// The number of items in the next block of an array or map; 0 behind the last one.
    pub(super) fn block(&mut self) -> Result<u64, Broken> {
        let count = self.long()?;
        if count < 0 {
            // The bytes of the block, for those who skip it.
            self.long()?;
        }
        Ok(count.unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longs_are_those_of_the_specification() {
        // The examples of Avro's specification, and the ends of 64 bits.
        let cases: [(&[u8], i64); 9] = [
            (&[0x00], 0),
            (&[0x01], -1),
            (&[0x02], 1),
            (&[0x03], -2),
            (&[0x7F], -64),
            (&[0x80, 0x01], 64),
            (&[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01], i64::MIN),
            (&[0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01], i64::MAX),
            (&[0x80, 0x00], 0),
        ];
        for (bytes, value) in cases {
            assert_eq!(Cursor::new(bytes).long(), Ok(value), "{bytes:?}");
        }
        let too_long = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x02];
        assert_eq!(Cursor::new(&too_long).long(), Err(Broken("a number is longer than 64 bits".into())));
        let cut = Broken("the message is cut off: it ends after 1 bytes, in the middle of a value".into());
        assert_eq!(Cursor::new(&[0x80]).long(), Err(cut));
    }
}
