//! Small choices taken off the front of an input; what is left is the bytes to try.

/// An input that is being used up. An empty one goes on to give zeros.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// What is left.
    pub rest: &'a [u8],
}

impl<'a> Input<'a> {
    /// All of it.
    pub fn new(rest: &'a [u8]) -> Input<'a> {
        Input { rest }
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        first
    }

    /// The next bytes, of which there may be fewer.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (first, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        first
    }
}

/// Cuts bytes as a network might: the lengths are drawn from one byte.
#[derive(Clone, Copy, Debug)]
pub struct Cuts(u64);

impl Cuts {
    /// The cuts that a byte stands for; 0: none, all at once.
    pub fn new(seed: u8) -> Cuts {
        Cuts(u64::from(seed))
    }

    /// How many bytes arrive next, of `left` that are to come: at least 1 where there are any.
    pub fn next(&mut self, left: usize) -> usize {
        if self.0 == 0 {
            return left;
        }
        // Knuth's MMIX generator; its upper bits are the good ones.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let most = 1 << (self.0 >> 61);
        (1 + (self.0 >> 33) as usize % most).min(left)
    }
}
