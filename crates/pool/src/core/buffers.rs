//! Large buffers that are used again, because fresh memory costs a page fault every 4 KiB.

/// Bytes that are kept at most.
const KEPT_BYTES: usize = 32 << 20;

/// Smaller ones are better asked for anew.
const LENGTH_MIN: usize = 64 << 10;

/// Buffers that nobody is using. What is in them is left over from earlier.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    idle: Vec<Vec<u8>>,
    bytes: usize,
}

impl Buffers {
    /// A buffer of `length` bytes, holding anything.
    pub(crate) fn take(&mut self, length: usize) -> Vec<u8> {
        let found = self.idle.iter().rposition(|buffer| buffer.capacity() >= length);
        match found {
            Some(index) if length >= LENGTH_MIN => {
                let mut buffer = self.idle.swap_remove(index);
                self.bytes -= buffer.capacity();
                buffer.resize(length, 0);
                buffer
            }
            _ => vec![0; length],
        }
    }

    /// Keeps a buffer for later.
    pub(crate) fn give(&mut self, buffer: Vec<u8>) {
        if buffer.capacity() >= LENGTH_MIN && self.bytes + buffer.capacity() <= KEPT_BYTES {
            self.bytes += buffer.capacity();
            self.idle.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_have_the_length_asked_for_and_are_bounded() {
        let mut buffers = Buffers::default();
        let mut rng = device::rng::Rng::new(3);
        for _ in 0..500 {
            let length = rng.below(4 << 20) as usize;
            let buffer = buffers.take(length);
            assert_eq!(buffer.len(), length);
            buffers.give(buffer);
            assert!(buffers.bytes <= KEPT_BYTES);
            assert_eq!(buffers.bytes, buffers.idle.iter().map(Vec::capacity).sum::<usize>());
        }
    }
}
