//! Where a file's bytes are: a file that is read piece by piece, or a buffer of the caller's.
//!
//! A file is never mapped: one that another process shortens would end this one by a signal. What it says is read
//! once, into memory of ours, and checked there; what is gone by the time it is read is an `Io` failure with the place.

use std::fmt;
use std::fs::File;
use std::io::{Error as IoError, ErrorKind};
use std::ops::Range;
use std::path::Path;

use crate::alloc::reserve;
use crate::error::{Error, Result};

/// The bytes of one file.
#[derive(Debug)]
pub(super) enum Source<'a> {
    File(OpenFile),
    Borrowed(&'a [u8]),
}

/// A regular file, and the first bytes of it as they were when they were read.
#[derive(Debug)]
pub(super) struct OpenFile {
    file: File,
    path: Box<str>,
    /// Its length when it was opened.
    len: u64,
    head: Vec<u8>,
}

impl OpenFile {
    /// Opens a regular file for reading.
    pub(super) fn open(path: &Path) -> Result<OpenFile> {
        let fail = |source| Error::Io { path: path.display().to_string(), what: "open", source };
        let check = |kind: std::fs::Metadata| match kind.is_file() {
            true if usize::try_from(kind.len()).is_ok() => Ok(kind.len()),
            true => Err(fail(IoError::new(ErrorKind::FileTooLarge, format!("{} bytes", kind.len())))),
            false => Err(fail(IoError::new(ErrorKind::InvalidInput, "not a regular file"))),
        };
        // Asked before opening, since opening a device may do something; and of what was opened, since the name may
        // have come to stand for something else meanwhile. A FIFO would wait for its writer, so nothing waits.
        std::fs::metadata(path).map_err(fail).and_then(check)?;
        let mut options = File::options();
        options.read(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK | libc::O_NOCTTY);
        let file = options.open(path).map_err(fail)?;
        let len = file.metadata().map_err(fail).and_then(check)?;
        Ok(OpenFile { file, path: path.display().to_string().into(), len, head: Vec::new() })
    }

    /// Bytes it had when it was opened.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The bytes read ahead.
    pub(super) fn head(&self) -> &[u8] {
        &self.head
    }

    /// Reads on until the first `end` bytes are there, or all that the file has.
    pub(super) fn read_head(&mut self, end: u64) -> Result<()> {
        let (from, end) = (self.head.len(), end.min(self.len) as usize);
        if end <= from {
            return Ok(());
        }
        let mut head = std::mem::take(&mut self.head);
        let read = grow(&mut head, end).and_then(|()| self.read(from as u64, &mut head[from..]));
        if read.is_err() {
            head.truncate(from);
        }
        self.head = head;
        read
    }

    /// Forgets what was read behind the first `end` bytes.
    pub(super) fn cut_head(&mut self, end: usize) {
        self.head.truncate(end);
    }

    /// Fills `out` with the bytes from `at` on.
    fn read(&self, at: u64, out: &mut [u8]) -> Result<()> {
        fill(at, out, |at, out| read_at(&self.file, at, out)).map_err(|(got, error)| {
            let wanted = out.len();
            let place = format!("{wanted} bytes wanted at byte {at}, {got} read");
            let source = match error {
                Some(e) => IoError::new(e.kind(), format!("{place}: {e}")),
                None => {
                    let end = at + got as u64;
                    let text = format!("{place}: the file ends at byte {end}; it had {} when it was opened", self.len);
                    IoError::new(ErrorKind::UnexpectedEof, text)
                }
            };
            Error::Io { path: self.path.to_string(), what: "read", source }
        })
    }
}

#[cfg(unix)]
fn read_at(file: &File, at: u64, out: &mut [u8]) -> std::io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, out, at)
}

#[cfg(windows)]
fn read_at(file: &File, at: u64, out: &mut [u8]) -> std::io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, out, at)
}

/// Reads until `out` is full; otherwise how much was read, and the system's reason where it has one.
fn fill(
    at: u64,
    out: &mut [u8],
    mut read: impl FnMut(u64, &mut [u8]) -> std::io::Result<usize>,
) -> std::result::Result<(), (usize, Option<IoError>)> {
    let mut got = 0;
    while got < out.len() {
        match read(at + got as u64, &mut out[got..]) {
            Ok(0) => return Err((got, None)),
            Ok(n) => got += n.min(out.len() - got),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err((got, Some(e))),
        }
    }
    Ok(())
}

/// Makes a buffer `len` bytes long, or fails.
fn grow(buffer: &mut Vec<u8>, len: usize) -> Result<()> {
    reserve(buffer, len.saturating_sub(buffer.len()))?;
    buffer.resize(len, 0);
    Ok(())
}

impl Source<'_> {
    /// The bytes that are in memory: all of a buffer, of a file those read ahead.
    pub(super) fn head(&self) -> &[u8] {
        match self {
            Source::File(file) => file.head(),
            Source::Borrowed(bytes) => bytes,
        }
    }

    /// Bytes of all.
    pub(super) fn len(&self) -> u64 {
        match self {
            Source::File(file) => file.len(),
            Source::Borrowed(bytes) => bytes.len() as u64,
        }
    }
}

/// A stretch of a model's file, or the same part of each of many that lie one behind another. Reading it may fail: the file may have been
/// shortened since it was opened.
#[derive(Clone, Copy)]
pub struct Data<'g> {
    source: &'g Source<'g>,
    at: u64,
    /// The first of its bytes, counted through all runs.
    first: usize,
    len: usize,
    runs: Runs,
}

/// Bytes that count as one behind another: runs of so many, of which one begins so far behind the beginning of the one before.
#[derive(Clone, Copy)]
struct Runs {
    len: usize,
    step: usize,
}

impl Runs {
    /// One without an end.
    const ONE: Runs = Runs { len: usize::MAX, step: usize::MAX };

    /// Where a byte is, and how many of its run there are from it on.
    fn place(self, byte: usize) -> (usize, usize) {
        let (run, within) = (byte / self.len, byte % self.len);
        (run * self.step + within, self.len - within)
    }
}

impl fmt::Debug for Data<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {}", self.len, self.at + self.runs.place(self.first).0 as u64)
    }
}

impl<'g> Data<'g> {
    /// `place` lies inside of the source.
    pub(super) fn new(source: &'g Source<'g>, place: &Range<u64>) -> Data<'g> {
        Data { source, at: place.start, first: 0, len: (place.end - place.start) as usize, runs: Runs::ONE }
    }

    /// Its bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The bytes of a range of it.
    ///
    /// Fails with `Internal` where it has fewer.
    pub fn part(&self, range: Range<usize>) -> Result<Data<'g>> {
        self.check(&range)?;
        Ok(Data { first: self.first + range.start, len: range.len(), ..*self })
    }

    /// The bytes of a range of each `step` bytes, as if they lay one behind another.
    ///
    /// Fails with `Internal` where it is no whole number of steps, or has been made by this.
    pub fn part_of_each(&self, step: usize, range: Range<usize>) -> Result<Data<'g>> {
        let whole = step > 0 && self.len.is_multiple_of(step) && self.runs.len == usize::MAX;
        if !whole || range.is_empty() || range.end > step {
            let message = format!("bytes {range:?} of each {step} of {} asked for", self.len);
            return Err(Error::Internal { message });
        }
        let at = self.at + (self.first + range.start) as u64;
        let runs = Runs { len: range.len(), step };
        Ok(Data { source: self.source, at, first: 0, len: self.len / step * range.len(), runs })
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Fills `out` with the bytes from `at` on.
    ///
    /// Fails with `Io` where the file no longer has them or cannot be read.
    pub fn read(&self, at: usize, mut out: &mut [u8]) -> Result<()> {
        self.check(&(at..at.saturating_add(out.len())))?;
        let mut byte = self.first + at;
        while !out.is_empty() {
            let (place, left) = self.runs.place(byte);
            let (run, rest) = out.split_at_mut(left.min(out.len()));
            let start = self.at + place as u64;
            match self.source {
                Source::File(file) => file.read(start, run)?,
                Source::Borrowed(bytes) => run.copy_from_slice(&bytes[start as usize..][..run.len()]),
            }
            (byte, out) = (byte + run.len(), rest);
        }
        Ok(())
    }

    /// The bytes of a range: those of a caller's buffer in place where they lie one behind another, others read into `buffer`.
    ///
    /// Fails like [`Self::read`], and where `buffer` cannot be made large enough.
    pub fn piece<'b>(&self, range: Range<usize>, buffer: &'b mut Vec<u8>) -> Result<&'b [u8]>
    where
        'g: 'b,
    {
        self.check(&range)?;
        let (place, left) = self.runs.place(self.first + range.start);
        if let Source::Borrowed(bytes) = self.source
            && (1..=left).contains(&range.len())
        {
            return Ok(&bytes[self.at as usize + place..][..range.len()]);
        }
        grow(buffer, buffer.len().max(range.len()))?;
        let out = &mut buffer[..range.len()];
        self.read(range.start, out)?;
        Ok(out)
    }

    /// A copy of all bytes.
    ///
    /// Fails like [`Self::piece`].
    pub fn to_vec(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        grow(&mut out, self.len)?;
        self.read(0, &mut out)?;
        Ok(out)
    }

    fn check(&self, range: &Range<usize>) -> Result<()> {
        if range.start > range.end || range.end > self.len {
            return Err(Error::Internal { message: format!("bytes {range:?} of {} asked for", self.len) });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_each_of_many_reads_as_one() {
        let bytes: Vec<u8> = (0..40).collect();
        let source = Source::Borrowed(&bytes);
        let data = Data::new(&source, &(3..39)).part(6..36).unwrap(); // 9 .. 39
        for (range, expected) in [
            (0..4, [9, 10, 11, 12, 19, 20, 21, 22, 29, 30, 31, 32]),
            (6..10, [15, 16, 17, 18, 25, 26, 27, 28, 35, 36, 37, 38]),
        ] {
            let part = data.part_of_each(10, range).unwrap();
            assert_eq!((part.len(), part.to_vec().unwrap()), (12, expected.to_vec()));
            for from in 0..=12 {
                for to in from..=12 {
                    let (mut buffer, expected) = (Vec::new(), &expected[from..to]);
                    assert_eq!(part.piece(from..to, &mut buffer).unwrap(), expected);
                    assert_eq!(part.part(from..to).unwrap().to_vec().unwrap(), expected);
                    let within = to > from && from / 4 == (to - 1) / 4;
                    assert_eq!(
                        buffer.is_empty(),
                        within || to == from,
                        "{from}..{to}: what lies together is not copied"
                    );
                }
            }
            for refused in [part.part(11..13), part.part_of_each(4, 0..2)] {
                assert!(matches!(refused, Err(Error::Internal { .. })));
            }
        }
        for (step, range) in [(0, 0..0), (7, 0..2), (10, 4..4), (10, 8..11)] {
            assert!(matches!(data.part_of_each(step, range), Err(Error::Internal { .. })));
        }
    }

    /// Reads 0, 1, 2, ... by what each step says: bytes given, or an error.
    fn run(n: usize, steps: &[std::result::Result<usize, ErrorKind>]) -> (Vec<u8>, Option<(usize, Option<ErrorKind>)>) {
        let mut steps = steps.iter();
        let mut out = vec![255; n];
        let failed = fill(10, &mut out, |at, out| match steps.next().expect("no read after the last") {
            Ok(n) => {
                out.iter_mut().take(*n).enumerate().for_each(|(i, b)| *b = (at as usize - 10 + i) as u8);
                Ok(*n)
            }
            Err(kind) => Err((*kind).into()),
        });
        (out, failed.err().map(|(got, e)| (got, e.map(|e| e.kind()))))
    }

    #[test]
    fn short_and_interrupted_reads_go_on_and_others_end() {
        let interrupted = Err(ErrorKind::Interrupted);
        assert_eq!(run(5, &[interrupted, Ok(2), interrupted, interrupted, Ok(3)]), (vec![0, 1, 2, 3, 4], None));
        assert_eq!(run(3, &[Ok(1), Ok(0)]), (vec![0, 255, 255], Some((1, None))));
        let denied = ErrorKind::PermissionDenied;
        assert_eq!(run(3, &[Ok(2), Err(denied)]), (vec![0, 1, 255], Some((2, Some(denied)))));
        assert_eq!(run(0, &[]), (vec![], None));
    }
}
