//! What a connection has to say: one buffer that replies are written to, and one that is being sent from, which does not
//! move meanwhile. A huge value that a reply shows is shared with the table, and sent from where it lies.

use storage::Rope;

/// A buffer that is larger than this is given back once it is empty.
const BYTES_KEPT: usize = 16 * 1024;

/// Bytes that wait to be sent.
#[derive(Debug, Default)]
pub(super) struct Output {
    filling: Rope,
    sending: Rope,
    /// So many bytes of `sending` are out.
    sent: usize,
}

impl Output {
    /// Where replies are appended.
    #[inline]
    pub fn buffer(&mut self) -> &mut Rope {
        &mut self.filling
    }

    /// Bytes that are not out.
    #[inline]
    pub fn unsent(&self) -> usize {
        self.filling.len() + self.sending.len() - self.sent
    }

    /// Bytes that the buffers take.
    pub fn room(&self) -> usize {
        self.filling.capacity() + self.sending.capacity()
    }

    /// What is to be sent next. It stays where it is until [`Output::advance`] has passed it.
    pub fn next(&mut self) -> Option<&[u8]> {
        if self.sent == self.sending.len() {
            self.sending.clear();
            self.sent = 0;
            if self.sending.capacity() > BYTES_KEPT {
                self.sending = Rope::default();
            }
            std::mem::swap(&mut self.filling, &mut self.sending);
        }
        let rest = self.sending.from(self.sent);
        if rest.is_empty() { None } else { Some(rest) }
    }

    /// So many more bytes are out.
    pub fn advance(&mut self, bytes: usize) {
        self.sent = (self.sent + bytes).min(self.sending.len());
    }

    /// Nobody will read any of it. What is just being sent stays where it is.
    pub fn abandon(&mut self, in_flight: bool) {
        self.filling = Rope::default();
        if !in_flight {
            self.sending = Rope::default();
            self.sent = 0;
        }
    }

    /// Gives the buffers back where they are empty.
    pub fn shrink(&mut self) {
        if self.unsent() == 0 {
            *self = Output::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::Sink;

    #[test]
    fn bytes_leave_in_order_and_what_is_being_sent_stays_in_place() {
        let mut output = Output::default();
        let (mut said, mut heard) = (Vec::new(), Vec::new());
        for step in 0..2000usize {
            let text = format!("{step},").repeat(step % 7 * 400);
            said.extend_from_slice(text.as_bytes());
            output.buffer().bytes().extend_from_slice(text.as_bytes());
            let Some(next) = output.next().map(|next| (next.as_ptr(), next.len())) else { continue };
            output.buffer().bytes().extend_from_slice(b"more");
            said.extend_from_slice(b"more");
            let again = output.next().unwrap();
            assert_eq!((again.as_ptr(), again.len()), next);
            let taken = (step * 31 % (next.1 + 1)).max(1);
            heard.extend_from_slice(&again[..taken]);
            output.advance(taken);
            assert_eq!(output.unsent(), said.len() - heard.len());
        }
        while let Some(next) = output.next() {
            heard.extend_from_slice(next);
            let bytes = next.len();
            output.advance(bytes);
        }
        assert!(heard == said);
        output.shrink();
        assert_eq!((output.unsent(), output.room()), (0, 0));
    }
}
