//! Writes to disk, one after another, away from whoever asks.

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use crate::store::SaveError;

/// Jobs that may wait; whoever asks for one more waits with them.
const WAITING: usize = 64;

type Job = Box<dyn FnOnce() -> Result<(), SaveError> + Send>;

enum Task {
    Job(Job),
    Flush(oneshot::Sender<()>),
}

/// See the module.
#[derive(Debug)]
pub struct Saver {
    tasks: mpsc::Sender<Task>,
    worker: JoinHandle<()>,
}

impl Saver {
    /// Within a runtime.
    #[must_use]
    pub fn start() -> Self {
        let (tasks, queue) = mpsc::channel(WAITING);
        Self { tasks, worker: tokio::spawn(work(queue)) }
    }

    /// Does this after everything that was asked for before. A failure is logged: what is kept is a convenience at the
    /// next start, never a reason to stop working now.
    pub async fn run(&self, job: impl FnOnce() -> Result<(), SaveError> + Send + 'static) {
        let _ = self.tasks.send(Task::Job(Box::new(job))).await;
    }

    /// Waits until everything that was asked for is on disk.
    pub async fn flush(&self) {
        let (done, wait) = oneshot::channel();
        if self.tasks.send(Task::Flush(done)).await.is_ok() {
            let _ = wait.await;
        }
    }

    /// Finishes everything and stops.
    pub async fn stop(self) {
        drop(self.tasks);
        let _ = self.worker.await;
    }
}

async fn work(mut queue: mpsc::Receiver<Task>) {
    while let Some(task) = queue.recv().await {
        match task {
            Task::Job(job) => match tokio::task::spawn_blocking(job).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!("{error}"),
                Err(error) => tracing::error!("a write to disk broke off: {error}"),
            },
            Task::Flush(done) => {
                let _ = done.send(());
            }
        }
    }
}
