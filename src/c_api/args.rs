//! Where everything that C passes is read and checked, and where results are copied out.
//!
//! Each function takes the argument's name for the text of its error. What cannot be checked, that a pointer that is
//! neither NULL nor misaligned points at as much as the caller says, is the `# Safety` of each.

use std::mem::size_of;

use crate::error::{Error, Result};

use super::status::KIGO_STRLEN;

/// A larger `struct_size` is taken for garbage: no struct of this ABI will ever have this many bytes.
const MAX_STRUCT_BYTES: usize = 4096;

/// A struct that begins with `size_t struct_size` and grows only at its end.
///
/// # Safety
/// `repr(C)`, no padding, a multiple of 8 bytes long, its first field is the `usize` size, no pointer straddles a
/// multiple of 8, and all zero bytes are a value.
pub(super) unsafe trait SizedStruct: Copy {
    /// `"<type>.struct_size"`.
    const SIZE_FIELD: &'static str;
}

/// Implements [`SizedStruct`] and freezes the size of each released version on 64-bit machines.
macro_rules! sized_struct {
    ($ty:ident, bytes: $bytes:expr, fields: [$($field:ty),* $(,)?]) => {
        const _: () = {
            // No padding, so that a later version can never grow into bytes that an older caller left undefined.
            assert!(size_of::<$ty>() == 0 $(+ size_of::<$field>())*);
            assert!(!cfg!(target_pointer_width = "64") || size_of::<$ty>() == $bytes);
            assert!(size_of::<$ty>() % 8 == 0 && std::mem::offset_of!($ty, struct_size) == 0);
        };
        // SAFETY: asserted above; the fields are integers, floats and nullable pointers, for which zero is a value.
        unsafe impl $crate::c_api::args::SizedStruct for $ty {
            const SIZE_FIELD: &'static str = concat!(stringify!($ty), ".struct_size");
        }
    };
}
pub(super) use sized_struct;

fn wrong_size<T: SizedStruct>(found: usize) -> Error {
    let expected = format!("sizeof = {}", size_of::<T>());
    Error::Argument { name: T::SIZE_FIELD, found: found.to_string(), expected }
}

/// Reads `struct_size` and checks that it can be one.
unsafe fn struct_size<T: SizedStruct>(pointer: *const T) -> Result<usize> {
    aligned(pointer, T::SIZE_FIELD)?;
    // SAFETY: the caller's contract; every sized struct begins with its size.
    let size = unsafe { pointer.cast::<usize>().read() };
    if size < size_of::<usize>() || size > MAX_STRUCT_BYTES || size % size_of::<usize>() != 0 {
        return Err(wrong_size::<T>(size));
    }
    Ok(size)
}

/// An options struct: NULL is all defaults; a shorter one of an older caller is read up to its size, the rest being
/// default; a longer one is accepted if what this library does not know is zero.
///
/// # Safety
/// `pointer` is NULL or points at `struct_size` readable bytes.
pub(super) unsafe fn options<T: SizedStruct>(pointer: *const T) -> Result<T> {
    // SAFETY: all zero is a value of T (contract of `SizedStruct`).
    let mut value: T = unsafe { std::mem::zeroed() };
    if pointer.is_null() {
        return Ok(value);
    }
    // SAFETY: not NULL; passed on from this function's contract.
    let size = unsafe { struct_size(pointer)? };
    let known = size.min(size_of::<T>());
    // SAFETY: `size` bytes are readable by contract, `value` has size_of::<T>() of them, and no pointer field is cut,
    // because `size` is a multiple of 8.
    let unknown = unsafe {
        pointer.cast::<u8>().copy_to_nonoverlapping((&raw mut value).cast::<u8>(), known);
        std::slice::from_raw_parts(pointer.cast::<u8>().add(known), size - known)
    };
    if unknown.iter().any(|b| *b != 0) {
        return Err(wrong_size::<T>(size));
    }
    Ok(value)
}

/// A struct that the library fills: zeroed up to the caller's size, its `struct_size` kept. Gives the size for
/// [`fill`].
///
/// # Safety
/// `out` is NULL or points at `struct_size` writable bytes.
pub(super) unsafe fn zero_out<T: SizedStruct>(out: *mut T, name: &'static str) -> Result<usize> {
    not_null(out, name)?;
    // SAFETY: not NULL; passed on from this function's contract.
    let size = unsafe { struct_size(out.cast_const())? };
    // SAFETY: `size` bytes are writable by contract, and size >= 8 was checked.
    unsafe { out.cast::<u8>().add(size_of::<usize>()).write_bytes(0, size - size_of::<usize>()) };
    Ok(size)
}

/// Copies what fits of `value`, behind the `struct_size`.
///
/// # Safety
/// `size` came from [`zero_out`] for the same `out`.
pub(super) unsafe fn fill<T: SizedStruct>(out: *mut T, size: usize, value: &T) {
    let head = size_of::<usize>();
    let n = size.min(size_of::<T>()) - head;
    // SAFETY: `size` bytes of `out` are writable by contract; the source is a whole T without padding.
    unsafe {
        let from = std::ptr::from_ref(value).cast::<u8>().add(head);
        out.cast::<u8>().add(head).copy_from_nonoverlapping(from, n);
    }
}

fn aligned<T>(pointer: *const T, name: &'static str) -> Result<()> {
    if pointer.is_aligned() {
        return Ok(());
    }
    let expected = format!("a multiple of {}", align_of::<T>());
    Err(Error::Argument { name, found: format!("{pointer:p}"), expected })
}

/// Refuses NULL, and what cannot point at a `T`.
pub(super) fn not_null<T>(pointer: *const T, name: &'static str) -> Result<()> {
    if pointer.is_null() { Err(Error::Null { name }) } else { aligned(pointer, name) }
}

/// Nulls (zeroes) a plain output on entry.
///
/// # Safety
/// `out` is NULL or valid for a write; all zero bytes are a `T`.
pub(super) unsafe fn null_out<T: Copy>(out: *mut T, name: &'static str) -> Result<()> {
    not_null(out, name)?;
    // SAFETY: not NULL and aligned (checked above), writable by contract.
    unsafe { out.write_bytes(0, 1) };
    Ok(())
}

/// Refuses what cannot be an array of `n` elements; looks at none of them.
pub(super) fn array<T>(pointer: *const T, n: usize, name: &'static str) -> Result<()> {
    not_null(pointer, name)?;
    let most = isize::MAX as usize / size_of::<T>();
    if n > most {
        let expected = format!("at most {most}");
        return Err(Error::Argument { name, found: format!("{n} elements long"), expected });
    }
    Ok(())
}

/// `n` elements that the caller owns.
///
/// # Safety
/// `pointer` is NULL or points at `n` readable elements that nobody writes during `'a`.
pub(super) unsafe fn slice<'a, T>(pointer: *const T, n: usize, name: &'static str) -> Result<&'a [T]> {
    if n == 0 {
        return Ok(&[]);
    }
    array(pointer, n, name)?;
    // SAFETY: not NULL, aligned, not larger than an object can be (checked above); readable by contract.
    Ok(unsafe { std::slice::from_raw_parts(pointer, n) })
}

/// Bytes of a text; a length of KIGO_STRLEN means up to the NUL.
///
/// # Safety
/// As for [`slice`]; with KIGO_STRLEN, a NUL ends it.
pub(super) unsafe fn bytes<'a>(pointer: *const std::ffi::c_char, len: usize, name: &'static str) -> Result<&'a [u8]> {
    if len == KIGO_STRLEN {
        not_null(pointer, name)?;
        // SAFETY: not NULL; NUL-terminated by contract.
        return Ok(unsafe { std::ffi::CStr::from_ptr(pointer) }.to_bytes());
    }
    // SAFETY: passed on from this function's contract.
    unsafe { slice(pointer.cast::<u8>(), len, name) }
}

/// A text that must be UTF-8.
///
/// # Safety
/// As for [`bytes`].
pub(super) unsafe fn text<'a>(pointer: *const std::ffi::c_char, len: usize, name: &'static str) -> Result<&'a str> {
    // SAFETY: passed on from this function's contract.
    let bytes = unsafe { bytes(pointer, len, name)? };
    std::str::from_utf8(bytes).map_err(|e| Error::Argument {
        name,
        found: format!("not UTF-8 at byte {} of {}", e.valid_up_to(), bytes.len()),
        expected: "UTF-8".to_owned(),
    })
}

/// A path: the system's bytes.
///
/// # Safety
/// As for [`bytes`].
pub(super) unsafe fn path(
    pointer: *const std::ffi::c_char,
    len: usize,
    name: &'static str,
) -> Result<std::path::PathBuf> {
    // SAFETY: passed on from this function's contract.
    let bytes = unsafe { bytes(pointer, len, name)? };
    if bytes.is_empty() || bytes.contains(&0) {
        let found = if bytes.is_empty() { "empty" } else { "holding a NUL byte" };
        return Err(Error::Argument { name, found: found.to_owned(), expected: "a path".to_owned() });
    }
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        Ok(std::path::PathBuf::from(std::ffi::OsStr::from_bytes(bytes)))
    }
    #[cfg(not(unix))]
    {
        // SAFETY: as above.
        unsafe { text(pointer, len, name) }.map(std::path::PathBuf::from)
    }
}

/// A buffer of the caller's for a result of a size not known before.
pub(super) struct Buffer<T> {
    pointer: *mut T,
    capacity: usize,
    needed: *mut usize,
}

impl<T: Copy> Buffer<T> {
    /// Checks the three arguments, of which `name` is the pointer's, and zeroes `*needed`.
    ///
    /// # Safety
    /// `pointer` is NULL or has room for `capacity` elements; `needed` is NULL or valid for a write.
    pub(super) unsafe fn new(
        pointer: *mut T,
        capacity: usize,
        needed: *mut usize,
        name: &'static str,
    ) -> Result<Buffer<T>> {
        // SAFETY: passed on from this function's contract.
        unsafe { null_out(needed, "needed")? };
        if capacity > 0 {
            not_null(pointer, name)?;
        }
        Ok(Buffer { pointer, capacity, needed })
    }

    /// Whether the caller only asks for the size.
    fn only_size(&self) -> bool {
        self.capacity == 0 && self.pointer.is_null()
    }

    /// Stores the size, and the elements if there is room. Only asking for the size succeeds; a buffer that is too
    /// small gets nothing.
    pub(super) fn store(&self, from: &[T]) -> Result<()> {
        self.announce(from.len())?;
        if !self.only_size() {
            // SAFETY: `announce` has checked that `capacity` elements are at least from.len(), and `new`'s contract
            // says that they are writable.
            unsafe { self.pointer.copy_from_nonoverlapping(from.as_ptr(), from.len()) };
        }
        Ok(())
    }

    /// Stores the size alone.
    fn announce(&self, needed: usize) -> Result<()> {
        // SAFETY: `new` has written to it.
        unsafe { self.needed.write(needed) };
        if !self.only_size() && needed > self.capacity {
            return Err(Error::BufferTooSmall { needed, capacity: self.capacity });
        }
        Ok(())
    }

    /// Stores the size, and has `make` fill the elements in place, all of which are zero before. It is not called where
    /// only the size is wanted. After a failure of `make` the size is zero again.
    pub(super) fn make(&mut self, n: usize, make: impl FnOnce(&mut [T]) -> Result<()>) -> Result<()> {
        self.announce(n)?;
        if self.only_size() {
            return Ok(());
        }
        // SAFETY: `announce` has checked that n <= capacity, so not NULL and writable (`new`); zeroed first, so that no
        // uninitialized memory is seen.
        let made = make(unsafe {
            self.pointer.write_bytes(0, n);
            std::slice::from_raw_parts_mut(self.pointer, n)
        });
        if made.is_err() {
            // SAFETY: `new` has written to it.
            unsafe { self.needed.write(0) };
        }
        made
    }
}

impl Buffer<std::ffi::c_char> {
    /// [`Self::store`] for text, with a NUL behind it where there is room for one.
    pub(super) fn store_text(&self, from: &[u8]) -> Result<()> {
        self.announce(from.len())?;
        if !self.only_size() {
            // SAFETY: as in `store`; the NUL only if capacity exceeds the text.
            unsafe {
                self.pointer.cast::<u8>().copy_from_nonoverlapping(from.as_ptr(), from.len());
                if from.len() < self.capacity {
                    self.pointer.add(from.len()).write(0);
                }
            }
        }
        Ok(())
    }
}

/// Flags of which only `known` exist.
pub(super) fn flags(found: u64, known: u64, name: &'static str) -> Result<u64> {
    if found & !known != 0 {
        let expected = format!("flags within {known:#x}");
        return Err(Error::Argument { name, found: format!("{found:#x}"), expected });
    }
    Ok(found)
}
