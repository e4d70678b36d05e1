//! Operations on workspaces.

mod create;
mod delete;
mod diff;
mod disk;
mod events;
mod exec;
mod export;
mod file;
mod last_command;
mod list;
mod logs;
mod network;
mod patch_apply;
mod pause;
mod port;
mod process;
mod reset;
mod resume;
mod secret;
mod service;
mod shell;
mod snapshot;
mod start;
mod status;
mod stop;
mod summary;
mod sync_push;
mod update;

pub use create::WorkspaceCreate;
pub use delete::{WorkspaceDelete, WorkspaceDeleted};
pub use diff::{
    ChangeStatus, ChangeSummary, ChangedEntry, ChangedType, WorkspaceDiff, WorkspaceDiffAnswer,
};
pub use disk::{DiskExport, DiskExportAnswer, DiskFormat, DiskList, DiskRead};
pub use events::{WorkspaceEvents, WorkspaceHistory};
pub use exec::{ExecState, WorkspaceExec, WorkspaceExecAnswer};
pub use export::{ExportFormat, WorkspaceExport, WorkspaceExportAnswer};
pub use file::{
    ArtifactType, FileDelete, FileDeleteAnswer, FileEdit, FileEditAnswer, FileList, FileListAnswer,
    FileMove, FileMoveAnswer, FileRead, FileReadAnswer, FileSearch, FileSearchAnswer, FileStat,
    FileStatAnswer, FileWrite, FileWriteAnswer, FoundMatch, GuestName, ListedFile,
};
pub use last_command::LastCommand;
pub use list::{WorkspaceList, WorkspaceListAnswer};
pub use logs::{LogEntry, LogState, WorkspaceLogs, WorkspaceLogsAnswer};
pub use network::{
    NetworkAllow, NetworkDeny, NetworkExplain, NetworkExplainAnswer, NetworkRemove,
    NetworkRuleEntry, NetworkStatus, NetworkStatusAnswer,
};
pub use patch_apply::{PatchApply, PatchApplyAnswer, PatchSummary, PatchedEntry};
pub use pause::WorkspacePause;
pub use port::{PortList, PortPublish, PortUnpublish, PortsAnswer, PublishedPort};
pub use process::{
    Condition, ConditionState, ProcessList, ProcessListAnswer, ProcessPoll, ProcessPollAnswer,
    ProcessSignal, ProcessSignalAnswer, ProcessWait, ProcessWaitAnswer, ProcessWrite,
    ProcessWriteAnswer,
};
pub use reset::{ResetTo, WorkspaceReset, WorkspaceResetAnswer};
pub use resume::WorkspaceResume;
pub use secret::{
    ListedSecret, SecretDelete, SecretDeleteAnswer, SecretList, SecretListAnswer, SecretSet,
    SecretSetAnswer,
};
pub use service::{
    ReadinessReport, RestartPolicy, ServiceList, ServiceListAnswer, ServiceLogs, ServiceLogsAnswer,
    ServiceRemove, ServiceRemoved, ServiceReport, ServiceReportState, ServiceRestart, ServiceStart,
    ServiceStartAnswer, ServiceStatus, ServiceStop, StopReason,
};
pub use shell::{
    ShellClose, ShellCloseAnswer, ShellCondition, ShellFacts, ShellList, ShellListAnswer,
    ShellOpen, ShellRead, ShellReadAnswer, ShellResize, ShellSignal, ShellSignalAnswer, ShellWrite,
    ShellWriteAnswer,
};
pub use snapshot::{
    SnapshotAnswer, SnapshotCreate, SnapshotDelete, SnapshotDeleted, SnapshotKind, SnapshotList,
    SnapshotListAnswer, SnapshotRename, SnapshotReport, SnapshotState,
};
pub use start::WorkspaceStart;
pub use status::{MachineStatus, WorkspaceStatus, WorkspaceStatusAnswer};
pub use stop::WorkspaceStop;
pub use summary::WorkspaceSummary;
pub use sync_push::{
    PushedAction, PushedChange, WorkspaceSync, WorkspaceSyncPush, WorkspaceSyncPushAnswer,
};
pub use update::WorkspaceUpdate;
