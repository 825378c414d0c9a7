//! Whether a file is a whole shared library for this machine, before the dynamic linker sees it.
//!
//! Pure. The linker says neither for which machine a library is, nor that it is cut off: it maps what the headers name, and the process
//! dies where it reads behind the file's end. What is inside the segments is not looked at.

use super::error::NativeError;

/// Bytes of the part of the header that has one form for all machines.
const IDENTITY: usize = 16;

/// `e_type` of a shared library, also of a position-independent program.
const DYNAMIC: u64 = 3;

/// `p_type` of what is mapped into memory.
const LOAD: u64 = 1;

/// What a library is built for: width of addresses in bits, byte order, and `e_machine`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Target {
    bits: u8,
    little: bool,
    machine: u64,
}

/// What the daemon is built for; `e_machine` is that of its architecture.
const HERE: Target = Target {
    bits: usize::BITS as u8,
    little: cfg!(target_endian = "little"),
    machine: if cfg!(target_arch = "x86_64") {
        62
    } else if cfg!(target_arch = "aarch64") {
        183
    } else if cfg!(target_arch = "arm") {
        40
    } else if cfg!(target_arch = "riscv64") || cfg!(target_arch = "riscv32") {
        243
    } else if cfg!(target_arch = "x86") {
        3
    } else if cfg!(target_arch = "powerpc64") {
        21
    } else if cfg!(target_arch = "s390x") {
        22
    } else {
        // The linker decides.
        0
    },
};

impl Target {
    /// For people.
    fn words(self) -> String {
        let name = match (self.machine, self.bits) {
            (3, _) => "32-bit x86".to_owned(),
            (8, bits) => format!("{bits}-bit MIPS"),
            (20, _) => "32-bit PowerPC".to_owned(),
            (21, _) => "64-bit PowerPC".to_owned(),
            (22, _) => "s390x".to_owned(),
            (40, _) => "32-bit ARM".to_owned(),
            (62, 32) => "x86-64 with 32-bit addresses".to_owned(),
            (62, _) => "x86-64".to_owned(),
            (183, _) => "64-bit ARM".to_owned(),
            (243, bits) => format!("{bits}-bit RISC-V"),
            (258, bits) => format!("{bits}-bit LoongArch"),
            (other, bits) => format!("a {bits}-bit machine with the ELF number {other}"),
        };
        let usual = self.little || matches!(self.machine, 8 | 20 | 21 | 22);
        if usual { name } else { format!("{name} with big-endian byte order") }
    }
}

/// The numbers of a file, in its byte order.
struct Numbers<'a> {
    bytes: &'a [u8],
    little: bool,
}

impl Numbers<'_> {
    /// The number of so many bytes at a place, if the file reaches there.
    fn at(&self, place: usize, len: usize) -> Option<u64> {
        let bytes = self.bytes.get(place..place.checked_add(len)?)?;
        let add = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Some(if self.little { bytes.iter().rev().fold(0, add) } else { bytes.iter().fold(0, add) })
    }
}

/// A file that begins with the ELF magic.
///
/// # Errors
/// It is not a shared library of this machine, or not a whole one.
pub(super) fn check(bytes: &[u8]) -> Result<(), NativeError> {
    let cut = || NativeError::Damaged("it ends within its header");
    let identity = bytes.get(..IDENTITY).ok_or_else(cut)?;
    let bits = match identity[4] {
        1 => 32,
        2 => 64,
        _ => return Err(NativeError::Damaged("its header names no width of addresses")),
    };
    let little = match identity[5] {
        1 => true,
        2 => false,
        _ => return Err(NativeError::Damaged("its header names no byte order")),
    };
    let numbers = Numbers { bytes, little };
    let kind = numbers.at(IDENTITY, 2).ok_or_else(cut)?;
    let target = Target { bits, little, machine: numbers.at(IDENTITY + 2, 2).ok_or_else(cut)? };
    if target != (Target { machine: if HERE.machine == 0 { target.machine } else { HERE.machine }, ..HERE }) {
        return Err(NativeError::OtherMachine { built: target.words(), here: HERE.words() });
    }
    match kind {
        DYNAMIC => {}
        1 => return Err(NativeError::NotShared("an object file")),
        2 => return Err(NativeError::NotShared("a program")),
        4 => return Err(NativeError::NotShared("a core dump")),
        _ => return Err(NativeError::Damaged("its header names no known type")),
    }
    is_whole(&numbers, bits)
}

/// Whether the file reaches as far as what is mapped of it.
fn is_whole(numbers: &Numbers<'_>, bits: u8) -> Result<(), NativeError> {
    let cut = || NativeError::Damaged("it ends before its contents");
    let wide = bits == 64;
    let address = if wide { 8 } else { 4 };
    // Where the program headers are, how large each is, and how many.
    let [table, size, count] = if wide { [32, 54, 56] } else { [28, 42, 44] };
    let table = numbers.at(table, address).and_then(|place| usize::try_from(place).ok()).ok_or_else(cut)?;
    let size = numbers.at(size, 2).ok_or_else(cut)? as usize;
    let count = numbers.at(count, 2).ok_or_else(cut)? as usize;
    // Where in a program header the offset and the length in the file are.
    let [offset, length] = if wide { [8, 32] } else { [4, 16] };
    for number in 0..count {
        let header = table.checked_add(number * size).ok_or_else(cut)?;
        if numbers.at(header, 4).ok_or_else(cut)? != LOAD {
            continue;
        }
        let offset = numbers.at(header + offset, address).ok_or_else(cut)?;
        let length = numbers.at(header + length, address).ok_or_else(cut)?;
        if offset.checked_add(length).is_none_or(|end| end > numbers.bytes.len() as u64) {
            return Err(cut());
        }
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A header of this machine, without program headers.
    pub(in super::super) fn header() -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..4].copy_from_slice(b"\x7fELF");
        bytes[4] = HERE.bits / 32;
        bytes[5] = if HERE.little { 1 } else { 2 };
        set(&mut bytes, 16, DYNAMIC as u16);
        set(&mut bytes, 18, HERE.machine as u16);
        bytes
    }

    /// Writes a number of so many bytes.
    fn put(bytes: &mut [u8], place: usize, len: usize, number: u64) {
        let (little, big) = (number.to_le_bytes(), number.to_be_bytes());
        bytes[place..place + len].copy_from_slice(if HERE.little { &little[..len] } else { &big[8 - len..] });
    }

    fn set(bytes: &mut [u8], place: usize, number: u16) {
        put(bytes, place, 2, number.into());
    }

    #[track_caller]
    fn check_changed(change: impl FnOnce(&mut Vec<u8>), expected: &str) {
        let mut bytes = header();
        change(&mut bytes);
        let error = check(&bytes).expect_err("is no library").to_string();
        assert_eq!(error, expected);
    }

    #[test]
    fn a_library_of_another_machine_is_told_by_name() {
        check(&header()).expect("is one of this machine");
        let here = HERE.words();
        let other =
            |built: &str| format!("is built for {built}, and this machine runs {here}; build it for this machine");
        let (number, name) = if HERE.machine == 183 { (62, "x86-64") } else { (183, "64-bit ARM") };
        check_changed(|bytes| set(bytes, 18, number), &other(name));
        check_changed(|bytes| set(bytes, 18, 999), &other("a 64-bit machine with the ELF number 999"));
        let arm = |bytes: &mut Vec<u8>| {
            bytes[4] = 1;
            set(bytes, 18, 40);
        };
        check_changed(arm, &other("32-bit ARM"));
        let sparc = |bytes: &mut Vec<u8>| {
            bytes[5] = 2;
            bytes[16..20].copy_from_slice(&[0, 3, 0, 43]);
        };
        check_changed(sparc, &other("a 64-bit machine with the ELF number 43 with big-endian byte order"));
    }

    #[test]
    fn what_is_no_library_is_told_by_its_kind() {
        let not = |what: &str| {
            format!("is {what}, not a shared library; link it with -shared, from code compiled with -fPIC")
        };
        check_changed(|bytes| set(bytes, 16, 1), &not("an object file"));
        check_changed(|bytes| set(bytes, 16, 2), &not("a program"));
        check_changed(|bytes| set(bytes, 16, 4), &not("a core dump"));
    }

    #[test]
    fn a_file_that_is_cut_off_or_garbled_is_told() {
        let damaged = |why: &str| format!("is damaged or incomplete: {why}; copy it again");
        check_changed(|bytes| bytes.truncate(7), &damaged("it ends within its header"));
        check_changed(|bytes| bytes.truncate(17), &damaged("it ends within its header"));
        check_changed(|bytes| bytes.truncate(40), &damaged("it ends before its contents"));
        check_changed(|bytes| bytes[4] = 0, &damaged("its header names no width of addresses"));
        check_changed(|bytes| bytes[5] = 3, &damaged("its header names no byte order"));
        check_changed(|bytes| set(bytes, 16, 9), &damaged("its header names no known type"));
    }

    /// One program header, of 100 bytes from byte 100 on.
    #[test]
    fn a_file_reaches_as_far_as_what_is_mapped_of_it() {
        let mut bytes = header();
        let wide = HERE.bits == 64;
        let [table, size, count, offset, length] = if wide { [32, 54, 56, 8, 32] } else { [28, 42, 44, 4, 16] };
        let address = if wide { 8 } else { 4 };
        bytes.resize(200, 0);
        put(&mut bytes, table, address, 64);
        put(&mut bytes, size, 2, 32);
        put(&mut bytes, count, 2, 1);
        put(&mut bytes, 64, 4, LOAD);
        put(&mut bytes, 64 + offset, address, 100);
        put(&mut bytes, 64 + length, address, 100);
        check(&bytes).expect("is whole");
        let damaged = "is damaged or incomplete: it ends before its contents; copy it again";
        for end in [199, 101, 99, 65] {
            assert_eq!(check(&bytes[..end]).expect_err("is cut off").to_string(), damaged, "{end}");
        }
    }

    /// The test's own program is position-independent: a shared library for this purpose.
    #[test]
    fn a_real_file_is_whole() {
        let whole = std::fs::read("/proc/self/exe").expect("this program can be read");
        check(&whole).expect("it is whole");
        check(&whole[..whole.len() / 64]).expect_err("it is cut off");
    }

    proptest! {
        #[test]
        fn whatever_a_header_says_it_is_read_without_a_panic(changes in prop::collection::vec((4_usize..64, any::<u8>()), 0..12), end in 4_usize..=64) {
            let mut bytes = header();
            changes.into_iter().for_each(|(place, byte)| bytes[place] = byte);
            let _ = check(&bytes[..end]);
        }
    }
}
