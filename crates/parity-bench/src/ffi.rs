//! Calls into C: the clock, huge pages, and ISA-L with the feature `isal`.

/// CPU time of the calling thread, seconds.
pub fn thread_cpu_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists on every Linux, and `time` is valid for writing. On failure it stays zero.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// CPU time of all children that have ended, seconds.
pub fn children_cpu_seconds() -> f64 {
    // SAFETY: a structure of integers, for which zero is valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is valid for writing. On failure it stays zero.
    unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 * 1e-6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// Asks the system to back a freshly reserved range by huge pages; it may decline.
pub fn ask_for_huge_pages(start: *const u8, size: usize) {
    const PAGE: usize = 4096;
    let skip = start.align_offset(PAGE);
    if let Some(size) = size.checked_sub(skip) {
        // SAFETY: advice of this kind changes no contents, and a range that is not mapped only yields an error.
        unsafe {
            libc::madvise(start.wrapping_add(skip).cast_mut().cast(), size / PAGE * PAGE, libc::MADV_HUGEPAGE)
        };
    }
}

/// Reads columns, a few lines of each in turn, as fast as the processor can.
pub fn read(columns: &[&[u8]]) {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx512f") {
        // SAFETY: the instructions are there.
        return unsafe { read_avx512(columns) };
    } else if std::is_x86_feature_detected!("avx2") {
        // SAFETY: as above.
        return unsafe { read_avx2(columns) };
    }
    read_any(columns);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn read_avx512(columns: &[&[u8]]) {
    read_any(columns);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn read_avx2(columns: &[&[u8]]) {
    read_any(columns);
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "compiled for the instructions of its callers")]
fn read_any(columns: &[&[u8]]) {
    const CHUNK: usize = 256;
    let mut sum = [0u64; CHUNK / 8];
    for start in (0..columns[0].len() / CHUNK * CHUNK).step_by(CHUNK) {
        for column in columns {
            for (sum, word) in sum.iter_mut().zip(column[start..start + CHUNK].as_chunks().0) {
                *sum ^= u64::from_ne_bytes(*word);
            }
        }
    }
    std::hint::black_box(sum);
}

#[cfg(feature = "isal")]
pub mod isal {
    //! Intel's Intelligent Storage Acceleration Library.

    #![allow(clippy::cast_possible_wrap, reason = "sizes of a benchmark, far below 2 GiB")]

    use std::ffi::{c_int, c_void};

    #[link(name = "isal")]
    unsafe extern "C" {
        fn xor_gen(vectors: c_int, length: c_int, array: *mut *mut c_void) -> c_int;
        fn pq_gen(vectors: c_int, length: c_int, array: *mut *mut c_void) -> c_int;
        fn xor_gen_avx(vectors: c_int, length: c_int, array: *mut *mut c_void) -> c_int;
        fn pq_gen_avx2(vectors: c_int, length: c_int, array: *mut *mut c_void) -> c_int;
        fn gf_gen_cauchy1_matrix(matrix: *mut u8, rows: c_int, columns: c_int);
        fn gf_invert_matrix(matrix: *mut u8, inverse: *mut u8, size: c_int) -> c_int;
        fn ec_init_tables(columns: c_int, rows: c_int, matrix: *mut u8, tables: *mut u8);
        fn ec_encode_data(
            length: c_int,
            columns: c_int,
            rows: c_int,
            tables: *mut u8,
            data: *mut *mut u8,
            coding: *mut *mut u8,
        );
        fn ec_encode_data_avx2(
            length: c_int,
            columns: c_int,
            rows: c_int,
            tables: *mut u8,
            data: *mut *mut u8,
            coding: *mut *mut u8,
        );
    }

    /// Which of the library's functions.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Level {
        /// Those that it chooses for this processor.
        Best,
        /// Those that it chooses where there is AVX2 and no AVX-512; the caller has seen to it that there is AVX2.
        Avx2,
    }

    /// P by `xor_gen` or P+Q by `pq_gen`, `count` times. Columns must be 32-byte aligned, the length a multiple of 32.
    pub fn raid(data: &[&mut [u8]], parity: &mut [&mut [u8]], level: Level, count: u32) {
        let length = data[0].len();
        assert!(data.iter().chain(parity.iter()).all(|column| column.len() == length));
        assert!(length.is_multiple_of(32) && (1..=2).contains(&parity.len()));
        let mut array: Vec<*mut c_void> =
            data.iter().map(|column| column.as_ptr().cast_mut().cast()).collect();
        array.extend(parity.iter_mut().map(|column| column.as_mut_ptr().cast::<c_void>()));
        assert!(array.iter().all(|pointer| pointer.cast::<u8>().align_offset(32) == 0));
        for _ in 0..count {
            // SAFETY: all columns are valid for `length` bytes and aligned as the library asks; only the last one or
            // two are written, and those are borrowed mutably.
            let status = unsafe {
                let function = match (parity.len(), level) {
                    (1, Level::Best) => xor_gen,
                    (1, Level::Avx2) => xor_gen_avx,
                    (_, Level::Best) => pq_gen,
                    (_, Level::Avx2) => pq_gen_avx2,
                };
                function(array.len() as c_int, length as c_int, array.as_mut_ptr())
            };
            assert_eq!(status, 0);
        }
    }

    /// A Cauchy code, as tables for `ec_encode_data`.
    pub struct Code {
        tables: Vec<u8>,
        rows: usize,
        level: Level,
    }

    impl Code {
        /// For making `rows` parity columns.
        pub fn generate(columns: usize, rows: usize, level: Level) -> Self {
            let mut matrix = Self::matrix(columns, rows);
            Self::from_matrix(columns, rows, level, &mut matrix[columns * columns..])
        }

        /// For rebuilding the first `rows` data columns out of the other ones and all parity columns.
        pub fn rebuild(columns: usize, rows: usize, level: Level) -> Self {
            let mut left = Self::matrix(columns, rows)[rows * columns..].to_vec();
            let mut inverse = vec![0; columns * columns];
            // SAFETY: both are square matrices of `columns` rows.
            let status =
                unsafe { gf_invert_matrix(left.as_mut_ptr(), inverse.as_mut_ptr(), columns as c_int) };
            assert_eq!(status, 0);
            Self::from_matrix(columns, rows, level, &mut inverse)
        }

        fn matrix(columns: usize, rows: usize) -> Vec<u8> {
            let mut matrix = vec![0; (columns + rows) * columns];
            // SAFETY: the matrix has that many rows and columns.
            unsafe {
                gf_gen_cauchy1_matrix(matrix.as_mut_ptr(), (columns + rows) as c_int, columns as c_int);
            };
            matrix
        }

        fn from_matrix(columns: usize, rows: usize, level: Level, matrix: &mut [u8]) -> Self {
            assert!(matrix.len() >= columns * rows);
            let mut tables = vec![0; 32 * columns * rows];
            // SAFETY: the library reads `columns * rows` factors and writes 32 bytes for each.
            unsafe {
                ec_init_tables(columns as c_int, rows as c_int, matrix.as_mut_ptr(), tables.as_mut_ptr());
            };
            Self { tables, rows, level }
        }

        /// Makes the output columns, `count` times.
        pub fn run(&mut self, inputs: &[&mut [u8]], outputs: &mut [&mut [u8]], count: u32) {
            let length = inputs[0].len();
            assert!(inputs.iter().chain(outputs.iter()).all(|column| column.len() == length));
            assert!(outputs.len() == self.rows && self.tables.len() == 32 * self.rows * inputs.len());
            let columns = inputs.len() as c_int;
            let mut inputs: Vec<*mut u8> = inputs.iter().map(|column| column.as_ptr().cast_mut()).collect();
            let mut outputs: Vec<*mut u8> = outputs.iter_mut().map(|column| column.as_mut_ptr()).collect();
            for _ in 0..count {
                // SAFETY: the tables fit the numbers of columns, which are all valid for `length` bytes; only the
                // outputs are written.
                unsafe {
                    let function = match self.level {
                        Level::Best => ec_encode_data,
                        Level::Avx2 => ec_encode_data_avx2,
                    };
                    function(
                        length as c_int,
                        columns,
                        self.rows as c_int,
                        self.tables.as_mut_ptr(),
                        inputs.as_mut_ptr(),
                        outputs.as_mut_ptr(),
                    );
                }
            }
        }
    }
}
