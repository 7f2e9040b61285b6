//! Writes to disk, one after another, away from whoever asks.

use tokio::{
    sync::{mpsc, oneshot, watch},
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
    failure: watch::Receiver<Option<String>>,
    worker: JoinHandle<()>,
}

impl Saver {
    /// Within a runtime.
    #[must_use]
    pub fn start() -> Self {
        let (tasks, queue) = mpsc::channel(WAITING);
        let (failures, failure) = watch::channel(None);
        Self { tasks, failure, worker: tokio::spawn(work(queue, failures)) }
    }

    /// Does this after everything that was asked for before. A failure is kept for [`Saver::failure`]: what is on disk
    /// is a convenience at the next start, never a reason to stop working now.
    pub async fn run(&self, job: impl FnOnce() -> Result<(), SaveError> + Send + 'static) {
        let _ = self.tasks.send(Task::Job(Box::new(job))).await;
    }

    /// Why the last write failed, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.failure.borrow().clone()
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

async fn work(mut queue: mpsc::Receiver<Task>, failures: watch::Sender<Option<String>>) {
    while let Some(task) = queue.recv().await {
        match task {
            Task::Job(job) => {
                let failure = match tokio::task::spawn_blocking(job).await {
                    Ok(Ok(())) => None,
                    Ok(Err(error)) => Some(error.to_string()),
                    Err(error) => Some(format!("a write to disk broke off: {error}")),
                };
                if let Some(failure) = &failure {
                    tracing::error!("{failure}");
                }
                failures.send_replace(failure);
            }
            Task::Flush(done) => {
                let _ = done.send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn jobs_are_done_in_their_order_and_a_failure_is_told_until_a_write_works() {
        let done = Arc::new(Mutex::new(Vec::new()));
        let saver = Saver::start();
        for n in 0..100 {
            let done = Arc::clone(&done);
            let job = move || {
                done.lock().unwrap().push(n);
                Ok(())
            };
            saver.run(job).await;
        }
        let error = || SaveError { path: "/x".into(), error: std::io::ErrorKind::StorageFull.into() };
        saver.run(move || Err(error())).await;
        saver.flush().await;
        assert_eq!(*done.lock().unwrap(), (0..100).collect::<Vec<_>>());
        assert!(saver.failure().unwrap().contains("/x"));
        saver.run(|| Ok(())).await;
        saver.flush().await;
        assert_eq!(saver.failure(), None);
        saver.stop().await;
    }
}
