//! The rows of one INSERT as bytes, and where each row lies, so that rows can be taken out without encoding again.
use bytes::{Bytes, BytesMut};

/// Rows that are inserted together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Block {
    body: Bytes,
    rows: Vec<Row>,
}

/// One row of a block.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Row {
    /// Index of the message in the parcel.
    message: u32,
    /// Where its bytes end in the body.
    end: usize,
}

impl Block {
    /// How many rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True when there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The bytes of all rows.
    pub fn body(&self) -> Bytes {
        self.body.clone()
    }

    /// The messages its rows were made of, by index in the parcel.
    pub fn messages(&self) -> impl Iterator<Item = u32> {
        self.rows.iter().map(|row| row.message)
    }

    /// The message of the row at `index`.
    pub fn message(&self, index: usize) -> u32 {
        self.rows[index].message
    }

    /// The bytes of the row at `index`.
    pub fn row(&self, index: usize) -> &[u8] {
        &self.body[self.start(index)..self.rows[index].end]
    }

    /// The block without the row at `index`.
    pub fn without(&self, index: usize) -> Self {
        let (start, end) = (self.start(index), self.rows[index].end);
        let mut body = BytesMut::with_capacity(self.body.len() - (end - start));
        body.extend_from_slice(&self.body[..start]);
        body.extend_from_slice(&self.body[end..]);
        let mut rows = self.rows.clone();
        rows.remove(index);
        for row in &mut rows[index..] {
            row.end -= end - start;
        }
        Self { body: body.freeze(), rows }
    }

    /// The first and the second half. Copies no body.
    pub fn halves(&self) -> (Self, Self) {
        let middle = self.len() / 2;
        let at = self.start(middle);
        let mut second = self.rows[middle..].to_vec();
        for row in &mut second {
            row.end -= at;
        }
        (
            Self { body: self.body.slice(..at), rows: self.rows[..middle].to_vec() },
            Self { body: self.body.slice(at..), rows: second },
        )
    }

    fn start(&self, index: usize) -> usize {
        if index == 0 { 0 } else { self.rows[index - 1].end }
    }
}

/// A block under construction.
#[derive(Debug, Default)]
pub struct BlockWriter {
    body: Vec<u8>,
    rows: Vec<Row>,
}

impl BlockWriter {
    /// Room for so many rows and bytes.
    pub fn with_capacity(rows: usize, bytes: usize) -> Self {
        Self { body: Vec::with_capacity(bytes), rows: Vec::with_capacity(rows) }
    }

    /// Adds the row that `write` appends; when it fails, what it wrote is taken back.
    ///
    /// # Errors
    /// What `write` answers.
    pub fn row<E>(&mut self, message: u32, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        let start = self.body.len();
        let written = write(&mut self.body);
        match written {
            Ok(()) => self.rows.push(Row { message, end: self.body.len() }),
            Err(_) => self.body.truncate(start),
        }
        written
    }

    /// Bytes of all rows so far.
    pub fn bytes(&self) -> usize {
        self.body.len()
    }

    /// The finished block.
    pub fn finish(self) -> Block {
        Block { body: self.body.into(), rows: self.rows }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), ()> {
        out.extend_from_slice(bytes);
        Ok(())
    }

    fn block(rows: &[(u32, &str)]) -> Block {
        let mut writer = BlockWriter::default();
        for (message, bytes) in rows {
            writer.row(*message, |out| put(out, bytes.as_bytes())).unwrap();
        }
        writer.finish()
    }

    #[test]
    fn a_failed_row_leaves_nothing_behind() {
        let mut writer = BlockWriter::default();
        writer.row(0, |out| put(out, &[1])).unwrap();
        let failed = writer.row(1, |out| {
            out.push(2);
            Err(())
        });
        assert!(failed.is_err());
        writer.row(2, |out| put(out, &[3])).unwrap();
        let block = writer.finish();
        assert_eq!((&block.body()[..], block.messages().collect::<Vec<_>>()), (&[1, 3][..], vec![0, 2]));
    }

    #[test]
    fn a_row_is_taken_out_with_its_bytes() {
        let all = block(&[(0, "a"), (3, ""), (4, "bcd"), (7, "e")]);
        let table = [
            (0, block(&[(3, ""), (4, "bcd"), (7, "e")])),
            (1, block(&[(0, "a"), (4, "bcd"), (7, "e")])),
            (2, block(&[(0, "a"), (3, ""), (7, "e")])),
            (3, block(&[(0, "a"), (3, ""), (4, "bcd")])),
        ];
        for (index, expected) in table {
            assert_eq!(all.without(index), expected, "{index}");
        }
        assert!(block(&[(0, "a")]).without(0).is_empty());
    }

    #[test]
    fn halves_hold_all_rows_in_order() {
        let all = block(&[(0, "a"), (1, "bb"), (2, "ccc"), (3, "d"), (4, "e")]);
        let (first, second) = all.halves();
        assert_eq!(first, block(&[(0, "a"), (1, "bb")]));
        assert_eq!(second, block(&[(2, "ccc"), (3, "d"), (4, "e")]));
        assert_eq!(second.halves().1.without(0), block(&[(4, "e")]));
    }
}
