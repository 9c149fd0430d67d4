//! Runs the tasks of many processes on one thread, in virtual time.
//!
//! Owns: which task runs next, time, the start and end of processes.
//! Does not own: the content of processes, and when they are killed.
//!
//! Ready tasks are kept as a set, from which the seed draws the next one. So a run follows from its seed alone,
//! in whatever order the parts of a program wake one another.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use async_trait::async_trait;
use clock::{Clock, Source};
use futures::future::BoxFuture;
use parking_lot::Mutex;

use crate::random::Random;

/// 2023-11-15 12:30:00 UTC.
pub(crate) const START: Duration = Duration::from_secs(1_700_051_400);
/// The monotonic clock of a machine at the start of a run.
const UPTIME: Duration = Duration::from_secs(86_400);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct ProcessId(u32);

type TaskId = u64;

/// A handle to one run; cheap to clone.
#[derive(Clone)]
pub(crate) struct Executor(Arc<ExecutorState>);

struct ExecutorState {
    woken: Arc<Mutex<Vec<TaskId>>>,
    state: Mutex<State>,
}

struct State {
    now: Duration,
    random: Random,
    next_task: TaskId,
    tasks: BTreeMap<TaskId, Slot>,
    ready: BTreeSet<TaskId>,
    next_timer: u64,
    timers: BTreeMap<(Duration, u64), Waker>,
    processes: Vec<ProcessState>,
    steps: u64,
    steps_max: u64,
    panics: Vec<String>,
}

struct Slot {
    process: ProcessId,
    /// `None` while it is polled.
    future: Option<BoxFuture<'static, ()>>,
    waker: Waker,
}

struct ProcessState {
    name: String,
    is_alive: bool,
    is_paused: bool,
    /// Tasks that are ready, but wait because the process is paused.
    parked: BTreeSet<TaskId>,
    tasks: BTreeSet<TaskId>,
    /// Steps left until the process dies.
    fuse: Option<u32>,
}

struct TaskWaker {
    task: TaskId,
    queue: Arc<Mutex<Vec<TaskId>>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.queue.lock().push(self.task);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.queue.lock().push(self.task);
    }
}

impl Executor {
    /// An executor that stops after `steps_max` steps.
    pub(crate) fn new(random: Random, steps_max: u64) -> Self {
        Self(Arc::new(ExecutorState {
            woken: Arc::default(),
            state: Mutex::new(State {
                now: Duration::ZERO,
                random,
                next_task: 0,
                tasks: BTreeMap::new(),
                ready: BTreeSet::new(),
                next_timer: 0,
                timers: BTreeMap::new(),
                processes: Vec::new(),
                steps: 0,
                steps_max,
                panics: Vec::new(),
            }),
        }))
    }

    /// Virtual time since the run began.
    pub(crate) fn now(&self) -> Duration {
        self.0.state.lock().now
    }

    /// Steps of tasks so far.
    pub(crate) fn steps(&self) -> u64 {
        self.0.state.lock().steps
    }

    /// Panics since the last call.
    pub(crate) fn take_panics(&self) -> Vec<String> {
        std::mem::take(&mut self.0.state.lock().panics)
    }

    /// Starts a process without tasks.
    pub(crate) fn start(&self, name: impl Into<String>) -> ProcessId {
        let mut state = self.0.state.lock();
        let id = ProcessId(state.processes.len() as u32);
        state.processes.push(ProcessState {
            name: name.into(),
            is_alive: true,
            is_paused: false,
            parked: BTreeSet::new(),
            tasks: BTreeSet::new(),
            fuse: None,
        });
        id
    }

    pub(crate) fn is_alive(&self, process: ProcessId) -> bool {
        self.0.state.lock().life(process).is_alive
    }

    pub(crate) fn is_paused(&self, process: ProcessId) -> bool {
        self.0.state.lock().life(process).is_paused
    }

    /// Ends a process at once: each of its tasks stops where it waits. The running task stops at its next wait.
    pub(crate) fn kill(&self, process: ProcessId) {
        let dropped: Vec<BoxFuture<'static, ()>> = {
            let mut state = self.0.state.lock();
            let life = state.life(process);
            life.is_alive = false;
            life.is_paused = false;
            life.parked.clear();
            let tasks = std::mem::take(&mut life.tasks);
            tasks.iter().filter_map(|task| state.remove(*task)).collect()
        };
        // Dropped outside of the lock: a drop may wake other tasks.
        drop(dropped);
    }

    /// Kills the process after `steps` more steps.
    pub(crate) fn set_fuse(&self, process: ProcessId, steps: u32) {
        self.0.state.lock().life(process).fuse = Some(steps);
    }

    /// Cancels every [`Self::set_fuse`].
    pub(crate) fn clear_fuses(&self) {
        self.0.state.lock().processes.iter_mut().for_each(|life| life.fuse = None);
    }

    /// Stops a process where it is, until [`Self::resume`].
    pub(crate) fn pause(&self, process: ProcessId) {
        let mut state = self.0.state.lock();
        let life = state.life(process);
        if !life.is_alive {
            return;
        }
        life.is_paused = true;
        let own: Vec<TaskId> = life.tasks.iter().copied().collect();
        for task in own {
            if state.ready.remove(&task) {
                state.life(process).parked.insert(task);
            }
        }
    }

    pub(crate) fn resume(&self, process: ProcessId) {
        let mut state = self.0.state.lock();
        let life = state.life(process);
        life.is_paused = false;
        let parked = std::mem::take(&mut life.parked);
        state.ready.extend(parked);
    }

    /// Runs a task within a process; drops it if the process is dead.
    pub(crate) fn spawn(
        &self,
        process: ProcessId,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> SpawnedTask {
        let refused = {
            let mut state = self.0.state.lock();
            let id = state.next_task;
            state.next_task += 1;
            let life = state.life(process);
            if life.is_alive {
                life.tasks.insert(id);
                let woken = TaskWaker { task: id, queue: self.0.woken.clone() };
                let waker = Waker::from(Arc::new(woken));
                state.tasks.insert(id, Slot { process, future: Some(Box::pin(task)), waker });
                state.wake(id);
                return SpawnedTask { executor: self.clone(), task: id };
            }
            (id, task)
        };
        drop(refused.1);
        SpawnedTask { executor: self.clone(), task: refused.0 }
    }

    /// The clock of a process. `skew_nanos` is the lead of its wall clock over the true time, and may change.
    pub(crate) fn clock(&self, process: ProcessId, skew_nanos: Arc<AtomicI64>, random: Random) -> Clock {
        let random = Mutex::new(random);
        Clock::new(Time { executor: self.clone(), process, skew_nanos, random })
    }

    pub(crate) fn sleep(&self, duration: Duration) -> Sleep {
        Sleep { deadline: self.now().saturating_add(duration), executor: self.clone(), timer: None }
    }

    /// Runs until `process` has no task left (returns true), or no task can go on (returns false).
    pub(crate) fn run_to_end_of(&self, process: ProcessId) -> bool {
        loop {
            if self.0.state.lock().life(process).tasks.is_empty() {
                return true;
            }
            if !self.step() {
                return false;
            }
        }
    }

    /// Takes one step of one task, or advances time to the next timer; false if there is neither, or too many steps.
    fn step(&self) -> bool {
        let (task, mut future, waker) = {
            let mut state = self.0.state.lock();
            let woken = std::mem::take(&mut *self.0.woken.lock());
            for task in woken {
                state.wake(task);
            }
            if state.steps >= state.steps_max {
                return false;
            }
            let Some(task) = state.draw() else {
                return state.pass_time();
            };
            let Some(slot) = state.tasks.get_mut(&task) else {
                return true;
            };
            let (process, waker) = (slot.process, slot.waker.clone());
            let Some(future) = slot.future.take() else {
                return true;
            };
            state.steps += 1;
            let life = state.life(process);
            let is_blown = match &mut life.fuse {
                Some(0) => true,
                Some(steps) => {
                    *steps -= 1;
                    false
                }
                None => false,
            };
            if is_blown {
                life.fuse = None;
                drop(state);
                self.kill(process);
                drop(future);
                return true;
            }
            (task, future, waker)
        };
        let polled =
            catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut Context::from_waker(&waker))));
        let mut state = self.0.state.lock();
        match polled {
            Ok(Poll::Pending) => match state.tasks.get_mut(&task) {
                Some(slot) => {
                    slot.future = Some(future);
                    return true;
                }
                // The step killed the task's own process.
                None => {
                    drop(state);
                    drop(future);
                    return true;
                }
            },
            Ok(Poll::Ready(())) => {}
            Err(panic) => {
                let name = state.tasks.get(&task).map(|slot| slot.process);
                let name = name.map(|process| state.life(process).name.clone()).unwrap_or_default();
                state.panics.push(format!("{name} panicked: {}", text_of(&*panic)));
            }
        }
        state.remove(task);
        drop(state);
        drop(future);
        true
    }

    /// Ends all processes, which frees the memory of this run.
    pub(crate) fn end(&self) {
        let count = self.0.state.lock().processes.len() as u32;
        (0..count).for_each(|process| self.kill(ProcessId(process)));
        let timers = std::mem::take(&mut self.0.state.lock().timers);
        drop(timers);
    }

    fn abort(&self, task: TaskId) {
        let dropped = self.0.state.lock().remove(task);
        drop(dropped);
    }
}

impl State {
    fn life(&mut self, process: ProcessId) -> &mut ProcessState {
        &mut self.processes[process.0 as usize]
    }

    fn wake(&mut self, task: TaskId) {
        let Some(slot) = self.tasks.get(&task) else {
            return;
        };
        let process = slot.process;
        if self.life(process).is_paused {
            self.life(process).parked.insert(task);
        } else {
            self.ready.insert(task);
        }
    }

    fn draw(&mut self) -> Option<TaskId> {
        let index = match self.ready.len() {
            0 => return None,
            1 => 0,
            len => self.random.below(len as u64) as usize,
        };
        let task = self.ready.iter().nth(index).copied()?;
        self.ready.remove(&task);
        Some(task)
    }

    fn pass_time(&mut self) -> bool {
        let Some(((time, _), _)) = self.timers.first_key_value() else {
            return false;
        };
        let time = *time;
        self.now = self.now.max(time);
        while let Some(entry) = self.timers.first_entry() {
            if entry.key().0 > time {
                break;
            }
            entry.remove().wake();
        }
        true
    }

    fn remove(&mut self, task: TaskId) -> Option<BoxFuture<'static, ()>> {
        self.ready.remove(&task);
        let slot = self.tasks.remove(&task)?;
        let life = self.life(slot.process);
        life.tasks.remove(&task);
        life.parked.remove(&task);
        slot.future
    }
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".into())
}

/// A started task; dropping the handle does not stop the task.
pub(crate) struct SpawnedTask {
    executor: Executor,
    task: TaskId,
}

impl SpawnedTask {
    /// Returns a guard whose drop stops the task.
    pub(crate) fn abort_on_drop(self) -> AbortGuard {
        AbortGuard(Some(self))
    }
}

pub(crate) struct AbortGuard(Option<SpawnedTask>);

impl AbortGuard {
    pub(crate) fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for AbortGuard {
    fn drop(&mut self) {
        if let Some(spawned) = &self.0 {
            spawned.executor.abort(spawned.task);
        }
    }
}

/// A timer: ready at its deadline.
pub(crate) struct Sleep {
    executor: Executor,
    deadline: Duration,
    timer: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let executor = self.executor.clone();
        let mut state = executor.0.state.lock();
        if state.now >= self.deadline {
            return Poll::Ready(());
        }
        let timer = *self.timer.get_or_insert_with(|| {
            state.next_timer += 1;
            state.next_timer
        });
        state.timers.insert((self.deadline, timer), context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            let removed = self.executor.0.state.lock().timers.remove(&(self.deadline, timer));
            drop(removed);
        }
    }
}

struct Time {
    executor: Executor,
    process: ProcessId,
    skew_nanos: Arc<AtomicI64>,
    random: Mutex<Random>,
}

#[async_trait]
impl Source for Time {
    fn unix(&self) -> Duration {
        let skew = self.skew_nanos.load(Ordering::SeqCst);
        let (size, now) = (Duration::from_nanos(skew.unsigned_abs()), START + self.executor.now());
        if skew < 0 { now - size } else { now + size }
    }

    fn monotonic(&self) -> Duration {
        UPTIME + self.executor.now()
    }

    async fn sleep(&self, duration: Duration) {
        self.executor.sleep(duration).await;
    }

    fn random(&self) -> u128 {
        let mut random = self.random.lock();
        u128::from(random.next()) << 64 | u128::from(random.next())
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.executor.spawn(self.process, task);
    }

    fn exit(&self, report: Box<dyn FnOnce() + Send>) {
        report();
        self.executor.0.state.lock().panics.push(format!("process {} ended by a panic", self.process.0));
        self.executor.kill(self.process);
    }
}
