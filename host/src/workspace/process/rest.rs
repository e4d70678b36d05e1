//! What is still to be recorded of a process that has ended.

use crate::agent::kept::Heard;
use crate::event::Stream;
use crate::secret::Redactor;
use crate::secret::redact::Redacting;
use crate::workspace::history::Recorder;

/// What is still to be recorded of both streams, without secrets.
pub(super) struct Rest {
    /// From where on to listen: a little before what is recorded, lest the end of a
    /// secret be taken for something else.
    pub(super) from: (u64, u64),
    stdout: Redacting,
    stderr: Redacting,
}

impl Rest {
    pub(super) fn after(recorder: &Recorder, redactor: &Redactor) -> Self {
        let reach = redactor.reach() as u64;
        let begin = |stream| {
            let heard = recorder.heard(stream);
            let from = heard.saturating_sub(reach);
            (from, redactor.stream_after(heard - from))
        };
        let (stdout_from, stdout) = begin(Stream::Stdout);
        let (stderr_from, stderr) = begin(Stream::Stderr);
        Self { from: (stdout_from, stderr_from), stdout, stderr }
    }

    fn of(&mut self, stream: Stream) -> &mut Redacting {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    pub(super) fn hear(&mut self, recorder: &mut Recorder, heard: Heard) {
        match heard {
            Heard::Output(stream, bytes) => recorder.push(stream, &self.of(stream).push(bytes)),
            Heard::Skipped(stream, bytes) => {
                let (told, missing) = self.of(stream).skip(bytes);
                recorder.push(stream, &told);
                if missing > 0 {
                    recorder.skip(stream, missing);
                }
            }
        }
    }

    pub(super) fn finish(mut self, recorder: &mut Recorder) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            recorder.push(stream, &self.of(stream).finish());
        }
    }
}
