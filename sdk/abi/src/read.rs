//! Reading what the other side points to.
//!
//! Owns: every check that can be made of a pointer: null, alignment, sizes, UTF-8. That it points to what it says, for as long as it says,
//! is the promise of the header, and the condition of each function here.

use core::fmt;
use core::mem::{MaybeUninit, offset_of};
use core::str::Utf8Error;

use crate::{Bytes, Host, Message, Outgoing, Pair, Plugin, Properties, Readings, Run};

/// What may be wrong with what the other side points to. Each text is a sentence whose subject is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A null pointer.
    Null,
    /// A pointer that its type does not permit.
    Misaligned,
    /// Less than the first minor version had.
    TooSmall {
        /// What it says.
        size: u32,
        /// What it had.
        least: u32,
    },
    /// More bytes than a machine has.
    TooLong {
        /// How many elements.
        count: usize,
    },
    /// Text that is not UTF-8.
    NotUtf8 {
        /// How many of its bytes are.
        valid: usize,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Null => f.write_str("is a null pointer"),
            Fault::Misaligned => f.write_str("is a misaligned pointer"),
            Fault::TooSmall { size, least } => write!(f, "says that its size is {size} bytes, less than {least}"),
            Fault::TooLong { count } => write!(f, "has {count} elements, more than fit into memory"),
            Fault::NotUtf8 { valid } => write!(f, "is not UTF-8 from byte {valid} on"),
        }
    }
}

impl core::error::Error for Fault {}

impl From<Utf8Error> for Fault {
    fn from(error: Utf8Error) -> Fault {
        Fault::NotUtf8 { valid: error.valid_up_to() }
    }
}

/// A struct to which later minor versions append fields.
///
/// # Safety
/// The type is `repr(C)`, begins with its size as a `u32`, has no padding between its fields, and is valid if all of its bytes from any
/// multiple of 8 on are zero.
pub unsafe trait Grows: Copy {
    /// Its size in the first minor version, which never changes.
    const LEAST: u32;
}

/// The end of the last field that the first minor version has.
macro_rules! grows {
    ($($type:ident up to $last:ident: $field:ty;)+) => {$(
        // SAFETY: `layout` in tests/ and the asserts below see the offsets; numbers, null pointers and absent functions are all zero.
        unsafe impl Grows for $type {
            const LEAST: u32 = (offset_of!($type, $last) + size_of::<$field>()) as u32;
        }
        const _: () = assert!(offset_of!($type, size) == 0 && <$type as Grows>::LEAST <= size_of::<$type>() as u32);
    )+};
}

grows! {
    Properties up to user_count: usize;
    Message up to properties: *const Properties;
    Outgoing up to properties: *const Properties;
    Run up to name: Bytes;
    Readings up to os_version: Bytes;
    Host up to last_error: Option<unsafe extern "C" fn()>;
    Plugin up to destroy: Option<unsafe extern "C" fn()>;
}

/// What fields are appended by: a size that is none of its multiples is of nobody who followed the rules, and no field is cut.
const STEP: usize = 8;

/// A copy of the struct: what its maker did not know is zero.
///
/// # Errors
/// The pointer is null or misaligned, or the size less than the first version's.
///
/// # Safety
/// A pointer that is neither null nor misaligned points to a `u32`, which says how many bytes can be read there. Up to the size of `T` they
/// are what the type says, and nobody writes to them meanwhile.
pub unsafe fn read<T: Grows>(from: *const T) -> Result<T, Fault> {
    // SAFETY: as asked of the caller.
    let size = unsafe { known(from) }?;
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: so many bytes can be read, and the new value has room for them.
    unsafe { from.cast::<u8>().copy_to_nonoverlapping(value.as_mut_ptr().cast(), size) };
    // SAFETY: the fields are those of the other side or zero, which `Grows` says is valid.
    Ok(unsafe { value.assume_init() })
}

/// Writes as much of a struct as fits where the other side wants it, and leaves the size there as it is.
///
/// # Errors
/// As [`read`].
///
/// # Safety
/// As of [`read`]; and the bytes can be written, which nobody else does meanwhile.
pub unsafe fn write<T: Grows>(to: *mut T, value: &T) -> Result<(), Fault> {
    // SAFETY: as asked of the caller.
    let size = unsafe { known(to) }? - size_of::<u32>();
    let from = (&raw const *value).cast::<u32>().wrapping_add(1);
    let to = to.cast::<u32>().wrapping_add(1);
    // SAFETY: so many bytes can be written after the size, and no more than the value has are read.
    unsafe { from.cast::<u8>().copy_to_nonoverlapping(to.cast(), size) };
    Ok(())
}

/// How many bytes both sides know of a struct.
///
/// # Safety
/// As of [`read`].
unsafe fn known<T: Grows>(from: *const T) -> Result<usize, Fault> {
    if from.is_null() {
        return Err(Fault::Null);
    }
    if !from.is_aligned() {
        return Err(Fault::Misaligned);
    }
    // SAFETY: it is neither null nor misaligned, so that the caller says that there is a size.
    let size = unsafe { from.cast::<u32>().read() };
    if size < T::LEAST {
        return Err(Fault::TooSmall { size, least: T::LEAST });
    }
    let whole = size as usize / STEP * STEP;
    Ok(whole.max(T::LEAST as usize).min(size_of::<T>()))
}

/// The elements of an array. Of none the pointer may be anything.
///
/// # Errors
/// The pointer is null or misaligned, or there are more than fit into memory.
///
/// # Safety
/// A pointer that is neither null nor misaligned points to so many elements, which live and do not change for `'a`.
pub unsafe fn slice<'a, T>(from: *const T, count: usize) -> Result<&'a [T], Fault> {
    if count == 0 {
        return Ok(&[]);
    }
    if from.is_null() {
        return Err(Fault::Null);
    }
    if !from.is_aligned() {
        return Err(Fault::Misaligned);
    }
    if count.checked_mul(size_of::<T>()).is_none_or(|bytes| isize::try_from(bytes).is_err()) {
        return Err(Fault::TooLong { count });
    }
    // SAFETY: not null, aligned and not too long; the rest is asked of the caller.
    Ok(unsafe { core::slice::from_raw_parts(from, count) })
}

impl Bytes {
    /// The bytes; an absent value has none.
    ///
    /// # Errors
    /// The pointer is null, but there are some; or there are more than fit into memory.
    ///
    /// # Safety
    /// A pointer that is not null points to so many bytes, which live and do not change for `'a`.
    pub unsafe fn get<'a>(self) -> Result<&'a [u8], Fault> {
        // SAFETY: as asked of the caller.
        unsafe { slice(self.ptr.cast::<u8>(), self.len) }
    }

    /// The bytes, or none where the value is absent.
    ///
    /// # Errors
    /// As [`Self::get`].
    ///
    /// # Safety
    /// As of [`Self::get`].
    pub unsafe fn get_or_absent<'a>(self) -> Result<Option<&'a [u8]>, Fault> {
        if self.ptr.is_null() && self.len == 0 {
            return Ok(None);
        }
        // SAFETY: as asked of the caller.
        unsafe { self.get() }.map(Some)
    }

    /// The text; of an absent value an empty one.
    ///
    /// # Errors
    /// As [`Self::get`]; or it is not UTF-8.
    ///
    /// # Safety
    /// As of [`Self::get`].
    pub unsafe fn text<'a>(self) -> Result<&'a str, Fault> {
        // SAFETY: as asked of the caller.
        Ok(str::from_utf8(unsafe { self.get() }?)?)
    }

    /// The text, or none where the value is absent.
    ///
    /// # Errors
    /// As [`Self::text`].
    ///
    /// # Safety
    /// As of [`Self::get`].
    pub unsafe fn text_or_absent<'a>(self) -> Result<Option<&'a str>, Fault> {
        // SAFETY: as asked of the caller.
        let bytes = unsafe { self.get_or_absent() }?;
        Ok(bytes.map(str::from_utf8).transpose()?)
    }
}

impl Pair {
    /// Both texts.
    ///
    /// # Errors
    /// As [`Bytes::text`].
    ///
    /// # Safety
    /// As of [`Bytes::get`], for both.
    pub unsafe fn texts<'a>(self) -> Result<(&'a str, &'a str), Fault> {
        // SAFETY: as asked of the caller.
        let key = unsafe { self.key.text() }?;
        // SAFETY: as asked of the caller.
        let value = unsafe { self.value.text() }?;
        Ok((key, value))
    }
}

#[cfg(test)]
mod tests {
    extern crate alloc;

    use alloc::string::ToString;
    use core::ptr;

    use super::*;

    const SIZE: u32 = size_of::<Run>() as u32;

    fn run() -> Run {
        Run { size: SIZE, trigger: crate::SILENCE, due: 7, name: Bytes::of_text("quiet") }
    }

    /// As a later minor version may know it.
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Later {
        run: Run,
        appended: [u64; 2],
    }

    // SAFETY: the fields of a run and numbers.
    unsafe impl Grows for Later {
        const LEAST: u32 = SIZE;
    }

    fn later(size: u32) -> Later {
        Later { run: Run { size, ..run() }, appended: [1, 2] }
    }

    #[test]
    fn what_the_maker_did_not_know_reads_as_zero() {
        #[track_caller]
        fn check(size: u32, expected: [u64; 2]) {
            let made = later(size);
            // SAFETY: it is there in whole, whatever its size says.
            let seen = unsafe { read(&raw const made) }.expect("it is large enough");
            assert_eq!((seen.run.size, seen.run.trigger, seen.run.due, seen.appended), (size, 1, 7, expected));
            // SAFETY: the name is static.
            assert_eq!(unsafe { seen.run.name.text() }, Ok("quiet"));
        }
        check(SIZE, [0, 0]);
        check(SIZE + 8, [1, 0]);
        check(SIZE + 16, [1, 2]);
        check(SIZE + 4096, [1, 2]);
        // Nobody who follows the rules has such a size, and half a field is none.
        check(SIZE + 12, [1, 0]);
    }

    #[test]
    fn a_maker_of_an_older_version_needs_no_more_memory_than_it_knew() {
        let older = run();
        // SAFETY: as many bytes as its size says are there; Miri sees that no more are read.
        let seen = unsafe { read((&raw const older).cast::<Later>()) }.expect("it is large enough");
        assert_eq!((seen.run.due, seen.appended), (7, [0, 0]));
    }

    #[test]
    fn what_a_newer_maker_appended_is_not_seen() {
        let newer = later(SIZE + 16);
        // SAFETY: it is there in whole.
        let seen = unsafe { read((&raw const newer).cast::<Run>()) }.expect("it is large enough");
        assert_eq!((seen.size, seen.due), (SIZE + 16, 7));
    }

    #[test]
    fn what_cannot_be_a_struct_is_refused_with_a_sentence() {
        #[track_caller]
        fn check(from: *const Run, expected: &str) {
            // SAFETY: null, misaligned, or a whole run.
            let fault = unsafe { read(from) }.expect_err("it is none");
            assert_eq!(fault.to_string(), expected);
        }
        check(ptr::null(), "is a null pointer");
        check(ptr::without_provenance(9), "is a misaligned pointer");
        let small = Run { size: SIZE - 1, ..run() };
        check(&raw const small, "says that its size is 31 bytes, less than 32");
        let empty = Run { size: 0, ..run() };
        check(&raw const empty, "says that its size is 0 bytes, less than 32");
    }

    #[test]
    fn as_much_is_written_as_there_is_room_for() {
        #[track_caller]
        fn check(size: u32, expected: [u64; 2]) {
            let mut room = Later { run: Run { size, trigger: 9, due: 9, name: Bytes::ABSENT }, appended: [9, 9] };
            // SAFETY: the room is there in whole.
            unsafe { write(&raw mut room, &later(777)) }.expect("there is room");
            assert_eq!((room.run.size, room.run.trigger, room.run.due, room.appended), (size, 1, 7, expected));
        }
        check(SIZE, [9, 9]);
        check(SIZE + 8, [1, 9]);
        check(SIZE + 16, [1, 2]);
        check(SIZE + 4096, [1, 2]);
    }

    #[test]
    fn nothing_is_written_where_there_is_too_little_room() {
        let mut room = Run { size: 8, due: 9, ..run() };
        // SAFETY: the room is there in whole.
        let fault = unsafe { write(&raw mut room, &run()) };
        assert_eq!((fault, room.due), (Err(Fault::TooSmall { size: 8, least: SIZE }), 9));
    }

    #[test]
    fn an_absent_value_is_not_an_empty_one() {
        #[track_caller]
        fn check(bytes: Bytes, expected: Result<Option<&str>, &str>) {
            // SAFETY: of static texts, or of no bytes, or null.
            let or_absent = unsafe { bytes.text_or_absent() };
            // SAFETY: as before.
            let plain = unsafe { bytes.text() };
            assert_eq!(or_absent.map_err(|fault| fault.to_string()), expected.map_err(str::to_string));
            assert_eq!(
                plain.map_err(|fault| fault.to_string()),
                expected.map(Option::unwrap_or_default).map_err(str::to_string)
            );
        }
        check(Bytes::ABSENT, Ok(None));
        check(Bytes::of(b""), Ok(Some("")));
        check(Bytes::of_text("grün"), Ok(Some("grün")));
        check(Bytes::of(b"gr\xfcn"), Err("is not UTF-8 from byte 2 on"));
        check(Bytes { ptr: ptr::null(), len: 3 }, Err("is a null pointer"));
        let too_long = Bytes { ptr: ptr::without_provenance(8), len: usize::MAX };
        check(too_long, Err(&alloc::format!("has {} elements, more than fit into memory", usize::MAX)));
    }

    #[test]
    fn an_array_without_elements_may_be_anywhere() {
        let nowhere = ptr::without_provenance::<Pair>(1);
        // SAFETY: there is nothing to read.
        assert_eq!(unsafe { slice(nowhere, 0) }.map(<[Pair]>::len), Ok(0));
        // SAFETY: it is misaligned.
        assert_eq!(unsafe { slice(nowhere, 1) }.map(<[Pair]>::len), Err(Fault::Misaligned));
        // SAFETY: it is null.
        assert_eq!(unsafe { slice(ptr::null::<Pair>(), 1) }.map(<[Pair]>::len), Err(Fault::Null));
        let aligned = ptr::without_provenance::<Pair>(64);
        let count = usize::MAX / size_of::<Pair>();
        // SAFETY: there are too many.
        assert_eq!(unsafe { slice(aligned, count) }.map(<[Pair]>::len), Err(Fault::TooLong { count }));
    }
}
