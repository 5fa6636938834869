//! How many bytes of heap an allocation takes: the arithmetic of every figure of memory here.
//!
//! It follows glibc's malloc and the standard library's hash table, and asks neither: a test
//! compares the sums with the allocator's own figure.

/// Bytes that glibc takes from its heap for an allocation of `bytes`: a header of 8, rounded up
/// to 16, at least 32 (malloc's MINSIZE on 64-bit machines); nothing for no allocation.
pub(crate) const fn allocation_bytes(bytes: usize) -> usize {
    if bytes == 0 {
        return 0;
    }
    let chunk = (bytes + 8).next_multiple_of(16);
    if chunk < 32 { 32 } else { chunk }
}

/// Bytes of a hash table of the standard library with this capacity: a power of two of buckets,
/// seven eighths of them usable, each with a control byte, and a group of 16 control bytes more.
pub(crate) const fn table_bytes(capacity: usize, entry_bytes: usize) -> usize {
    let buckets = match capacity {
        0 => return 0,
        1..=3 => 4,
        4..=7 => 8,
        _ => (capacity * 8 / 7).next_power_of_two(),
    };
    allocation_bytes((buckets * entry_bytes).next_multiple_of(16) + buckets + 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn allocations_are_rounded_as_glibc_does() {
        let cases = [(0, 0), (1, 32), (24, 32), (25, 48), (40, 48), (41, 64), (1_000, 1_008)];
        for (bytes, expected) in cases {
            assert_eq!(allocation_bytes(bytes), expected, "{bytes}");
        }
    }

    #[test]
    fn tables_have_the_buckets_that_their_capacity_says() {
        for (wanted, buckets) in [(1, 4), (4, 8), (8, 16), (15, 32), (1_000, 2_048)] {
            let map: HashMap<u64, u64> = HashMap::with_capacity(wanted);
            let expected = allocation_bytes(buckets * 16 + buckets + 16);
            assert_eq!(table_bytes(map.capacity(), 16), expected, "{wanted}");
        }
    }
}
