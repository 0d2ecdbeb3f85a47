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

/// A stretch of a model's file. Reading it may fail: the file may have been shortened since it was opened.
#[derive(Clone, Copy)]
pub struct Data<'g> {
    source: &'g Source<'g>,
    at: u64,
    len: usize,
}

impl fmt::Debug for Data<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {}", self.len, self.at)
    }
}

impl<'g> Data<'g> {
    /// `place` lies inside of the source.
    pub(super) fn new(source: &'g Source<'g>, place: &Range<u64>) -> Data<'g> {
        Data { source, at: place.start, len: (place.end - place.start) as usize }
    }

    /// Its bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The bytes of a range of it.
    ///
    /// Fails with `Internal` where it has fewer.
    pub fn part(&self, range: Range<usize>) -> Result<Data<'g>> {
        let Range { start, end } = self.checked(range)?;
        Ok(Data { source: self.source, at: start, len: (end - start) as usize })
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Fills `out` with the bytes from `at` on.
    ///
    /// Fails with `Io` where the file no longer has them or cannot be read.
    pub fn read(&self, at: usize, out: &mut [u8]) -> Result<()> {
        let range = self.checked(at..at.saturating_add(out.len()))?;
        match self.source {
            Source::File(file) => file.read(range.start, out),
            Source::Borrowed(bytes) => {
                out.copy_from_slice(&bytes[range.start as usize..range.end as usize]);
                Ok(())
            }
        }
    }

    /// The bytes of a range: those of a caller's buffer in place, those of a file read into `buffer`.
    ///
    /// Fails like [`Self::read`], and where `buffer` cannot be made large enough.
    pub fn piece<'b>(&self, range: Range<usize>, buffer: &'b mut Vec<u8>) -> Result<&'b [u8]>
    where
        'g: 'b,
    {
        let Range { start, end } = self.checked(range.clone())?;
        match self.source {
            Source::File(file) => {
                grow(buffer, buffer.len().max(range.len()))?;
                let out = &mut buffer[..range.len()];
                file.read(start, out)?;
                Ok(out)
            }
            Source::Borrowed(bytes) => Ok(&bytes[start as usize..end as usize]),
        }
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

    /// The range's place in the source.
    fn checked(&self, range: Range<usize>) -> Result<Range<u64>> {
        if range.start > range.end || range.end > self.len {
            return Err(Error::Internal { message: format!("bytes {range:?} of {} asked for", self.len) });
        }
        Ok(self.at + range.start as u64..self.at + range.end as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
