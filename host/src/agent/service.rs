//! Programs that are kept going in the guest under a name.

use super::kept::stream_of;
use super::{AgentClient, Channel, Connection, lost, refused};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Stream;
use pyro_protocol::kept::Skipped;
use pyro_protocol::service::{
    CountServices, LOG_CHUNK_MAX, LOG_RETAINED, ListServices, LogChunk, RemoveService,
    RestartService, SERVICES_MAX, Service, ServiceCounts, ServiceLogging, ServiceLogs, ServiceName,
    ServiceStatus, StartService, StopService,
};
use pyro_protocol::{FrameKind, FrameReader, FrameWriter, Lost, Request};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::time::timeout;

/// How much longer than it may take to become ready a start may take: one that
/// is not is stopped first.
const ENDING: Duration = Duration::from_secs(15);

/// The most bytes of a log that is not followed: what a guest keeps, and plenty.
const LOG_MAX: u64 = 4 * LOG_RETAINED;

/// The log of a service, as it comes.
pub struct Log<S> {
    reader: FrameReader<ReadHalf<S>>,
    /// Kept open: its end would end the log.
    _writer: FrameWriter<WriteHalf<S>>,
    name: ServiceName,
    /// What may come; nothing is known of a log that is followed.
    limits: Option<Limits>,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    bytes: u64,
    silence: Duration,
}

/// What one who reads a log hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Logged {
    /// The service wrote this, then, in nanoseconds since the Unix epoch.
    Output(Stream, i64, Vec<u8>),
    /// It wrote so many bytes, and they are gone.
    Skipped(Stream, u64),
}

impl AgentClient {
    /// Starts a service, and waits until it is ready or never will be. Dropping
    /// the future before that stops it.
    pub async fn start_service(&self, call: StartService) -> Result<Service> {
        let allowed = call.readiness.as_ref().map_or(0, |readiness| readiness.timeout_ms);
        self.about_one(call.name.clone(), call, Duration::from_millis(allowed.into())).await
    }

    /// The services there are, by their names.
    pub async fn services(&self) -> Result<Vec<Service>> {
        let services = self.call(ListServices, self.deadlines.reply).await?.services;
        let sorted = services.is_sorted_by(|one, next| one.name < next.name);
        if sorted && services.len() <= SERVICES_MAX {
            return Ok(services);
        }
        Err(broken("listed services that cannot be"))
    }

    /// How many there are.
    pub async fn count_services(&self) -> Result<ServiceCounts> {
        let counts = self.call(CountServices, self.deadlines.reply).await?;
        if counts.running <= counts.services && counts.services as usize <= SERVICES_MAX {
            return Ok(counts);
        }
        Err(broken("counted services that cannot be"))
    }

    /// How a service is.
    pub async fn service(&self, name: ServiceName) -> Result<Service> {
        self.about_one(name.clone(), ServiceStatus { name }, Duration::ZERO).await
    }

    /// Stops a service.
    pub async fn stop_service(&self, name: ServiceName, grace: Duration) -> Result<Service> {
        let call = StopService { name: name.clone(), grace_ms: millis(grace) };
        self.about_one(name, call, grace).await
    }

    /// Stops a service and starts it again; as [`AgentClient::start_service`].
    pub async fn restart_service(&self, name: ServiceName, grace: Duration) -> Result<Service> {
        // How long it may take to become ready, only the guest remembers.
        let readiness = self.service(name.clone()).await?.readiness;
        let allowed = readiness.map_or(0, |readiness| readiness.timeout_ms);
        let call = RestartService { name: name.clone(), grace_ms: millis(grace) };
        self.about_one(name, call, grace + Duration::from_millis(allowed.into())).await
    }

    /// Stops and removes a service with its log.
    pub async fn remove_service(&self, name: ServiceName, grace: Duration) -> Result<Service> {
        let call = RemoveService { name: name.clone(), grace_ms: millis(grace) };
        self.about_one(name, call, grace).await
    }

    /// What a service wrote, and how it is.
    pub async fn service_log(&self, call: ServiceLogs) -> Result<(ServiceLogging, Log<Channel>)> {
        let (name, follow) = (call.name.clone(), call.follow);
        let (connection, logging) = self.begin(call).await?;
        check(&name, &logging.service)?;
        let limits = Limits { bytes: LOG_MAX, silence: self.deadlines.silence };
        let limits = (!follow).then_some(limits);
        let Connection { reader, writer, .. } = connection;
        Ok((logging, Log { reader, _writer: writer, name, limits }))
    }

    /// A call that answers how one service is, after so long at most.
    async fn about_one<R>(&self, name: ServiceName, call: R, takes: Duration) -> Result<Service>
    where
        R: Request<Reply = Service>,
    {
        let patience = takes + ENDING + self.deadlines.reply;
        let service = self.call(call, patience).await?;
        check(&name, &service).map(|()| service)
    }
}

impl<S: AsyncRead + AsyncWrite> Log<S> {
    /// Hears what there is and, when it is followed, what comes until the service
    /// is over; gives how it is then. Dropping the future ends nothing but the
    /// listening.
    pub async fn finish<H: Future<Output = ()>>(
        mut self,
        mut hear: impl FnMut(Logged) -> H,
    ) -> Result<Service> {
        let mut heard = 0;
        loop {
            let frame = match self.limits {
                None => self.reader.next().await,
                Some(limits) => timeout(limits.silence, self.reader.next())
                    .await
                    .unwrap_or_else(|_| Err(Lost::Io(std::io::ErrorKind::TimedOut.into()))),
            };
            let frame = frame.map_err(lost)?;
            match frame.kind {
                FrameKind::Data => {
                    let LogChunk { stream, at_ns, data } =
                        frame.decode(frame.kind).map_err(lost)?;
                    heard += data.0.len() as u64;
                    let too_much = self.limits.is_some_and(|limits| heard > limits.bytes);
                    if too_much || data.0.len() > LOG_CHUNK_MAX {
                        return Err(broken("sent more of a log than there can be"));
                    }
                    hear(Logged::Output(stream_of(stream), at_ns, data.0)).await;
                }
                FrameKind::Skipped => {
                    let Skipped { stream, bytes } = frame.decode(frame.kind).map_err(lost)?;
                    hear(Logged::Skipped(stream_of(stream), bytes)).await;
                }
                FrameKind::DataEnd => {
                    let service = frame.decode(frame.kind).map_err(lost)?;
                    return check(&self.name, &service).map(|()| service);
                }
                FrameKind::Error => {
                    let error = frame.decode(FrameKind::Error).map_err(lost)?;
                    let message = "the guest's agent gave up on the log";
                    return Err(Error::new(ErrorKind::Protocol, message).because(refused(error)));
                }
                got @ (FrameKind::Hello
                | FrameKind::Welcome
                | FrameKind::Call
                | FrameKind::Reply
                | FrameKind::Announcement
                | FrameKind::Stdin
                | FrameKind::StdinEnd
                | FrameKind::Stdout
                | FrameKind::Stderr
                | FrameKind::Exit
                | FrameKind::Signal
                | FrameKind::StdinTaken
                | FrameKind::Resize) => {
                    return Err(lost(Lost::OutOfPlace { got, wanted: "a log or its end" }));
                }
            }
        }
    }
}

/// Whether it is the one that was asked about.
fn check(name: &ServiceName, service: &Service) -> Result<()> {
    if service.name == *name { Ok(()) } else { Err(broken("spoke of another service")) }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

fn broken(what: &str) -> Error {
    Error::new(ErrorKind::Protocol, format!("the guest broke the protocol: it {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pyro_protocol::ByteString;
    use pyro_protocol::kept::OutputStream;
    use pyro_protocol::service::{Restart, ServiceState};
    use tokio::io::DuplexStream;

    fn name() -> ServiceName {
        "web".parse().unwrap()
    }

    fn service(name: &str) -> Service {
        Service {
            name: name.parse().unwrap(),
            argv: Vec::new(),
            cwd: None,
            readiness: None,
            restart: Restart::Never,
            started_at_ns: i64::MIN,
            restarts: 0,
            state: ServiceState::Starting { pid: 1, since_ns: i64::MAX },
        }
    }

    fn chunk(length: usize) -> LogChunk {
        LogChunk { stream: OutputStream::Stdout, at_ns: 0, data: ByteString(vec![0; length]) }
    }

    /// A log as a guest tells it that writes these frames.
    async fn told<F>(
        limits: Option<Limits>,
        write: impl FnOnce(FrameWriter<WriteHalf<DuplexStream>>) -> F,
    ) -> Result<Service>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (reader, writer) = tokio::io::split(ours);
        let (_unread, their_writer) = tokio::io::split(theirs);
        let writing = tokio::spawn(write(FrameWriter::new(their_writer)));
        let reader = FrameReader::new(reader);
        let log = Log { reader, _writer: FrameWriter::new(writer), name: name(), limits };
        let told = log.finish(|_| std::future::ready(())).await;
        writing.abort();
        told
    }

    #[tokio::test]
    async fn s1_a_log_that_is_none_is_refused() {
        let good = told(None, async |mut writer| {
            writer.send(FrameKind::Data, &chunk(LOG_CHUNK_MAX)).await.unwrap();
            writer.send(FrameKind::DataEnd, &service("web")).await.unwrap();
        });
        assert_eq!(good.await.unwrap(), service("web"));
        let another = told(None, async |mut writer| {
            writer.send(FrameKind::DataEnd, &service("other")).await.unwrap();
        });
        assert_eq!(another.await.unwrap_err().kind(), ErrorKind::Protocol);
        let long = told(None, async |mut writer| {
            writer.send(FrameKind::Data, &chunk(LOG_CHUNK_MAX + 1)).await.unwrap();
        });
        assert_eq!(long.await.unwrap_err().kind(), ErrorKind::Protocol);
        let raw = told(None, async |mut writer| {
            writer.send_raw(FrameKind::Data, b"no chunk").await.unwrap();
        });
        assert_eq!(raw.await.unwrap_err().kind(), ErrorKind::Protocol);
        let strange = told(None, async |mut writer| {
            writer.send_raw(FrameKind::Stdout, b"hello").await.unwrap();
        });
        assert_eq!(strange.await.unwrap_err().kind(), ErrorKind::Protocol);
        let cut = told(None, async |mut writer| writer.shutdown().await.unwrap());
        assert_eq!(cut.await.unwrap_err().kind(), ErrorKind::GuestLost);
    }

    #[tokio::test]
    async fn s4_a_log_that_is_not_followed_has_an_end() {
        let limits = Limits { bytes: 1 << 20, silence: Duration::from_secs(60) };
        let endless = told(Some(limits), async |mut writer| {
            while writer.send(FrameKind::Data, &chunk(LOG_CHUNK_MAX)).await.is_ok() {}
        });
        assert_eq!(endless.await.unwrap_err().kind(), ErrorKind::Protocol);
    }
}
