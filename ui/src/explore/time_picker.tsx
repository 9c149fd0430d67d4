// Controls for the time range and the refresh interval.
import { useState } from 'react';
import { Hint } from '../parts/hint';
import { Icon } from '../parts/icon';
import { Popover } from '../parts/popover';
import { dateTime, describeRange, isRelative, resolveRange } from '../state/time';
import controls from '../parts/controls.module.css';
import style from './time_picker.module.css';

const QUICK: readonly { from: string; label: string }[] = [
  { from: 'now-5m', label: 'last 5 min' },
  { from: 'now-15m', label: 'last 15 min' },
  { from: 'now-30m', label: 'last 30 min' },
  { from: 'now-1h', label: 'last 1 h' },
  { from: 'now-3h', label: 'last 3 h' },
  { from: 'now-6h', label: 'last 6 h' },
  { from: 'now-12h', label: 'last 12 h' },
  { from: 'now-24h', label: 'last 24 h' },
  { from: 'now-2d', label: 'last 2 d' },
  { from: 'now-7d', label: 'last 7 d' },
  { from: 'now-30d', label: 'last 30 d' },
];

const INTERVALS = ['', '5s', '10s', '30s', '1m', '5m'];

interface TimePickerProps {
  from: string;
  until: string;
  onChange: (from: string, until: string) => void;
}

export function TimePicker({ from, until, onChange }: TimePickerProps) {
  return (
    <Popover
      shrinks="last"
      label={`Time range: ${describeRange(from, until)}`}
      hint={describeRange(from, until)}
      align="right"
      face={
        <>
          <span className={style['range']}>{describeRange(from, until)}</span>
          <Icon name="chevron" />
        </>
      }
    >
      {(close) => (
        <div className={style['panel']}>
          <div className={`${controls['choices']} ${style['quick']}`} role="group" aria-label="Quick ranges">
            {QUICK.map((quick) => (
              <button
                key={quick.from}
                type="button"
                aria-pressed={from === quick.from && until === 'now'}
                onClick={() => {
                  onChange(quick.from, 'now');
                  close();
                }}
              >
                {quick.label}
              </button>
            ))}
          </div>
          <ExactTimes
            from={from}
            until={until}
            onApply={(start, end) => {
              onChange(start, end);
              close();
            }}
          />
        </div>
      )}
    </Popover>
  );
}

function ExactTimes({ from, until, onApply }: { from: string; until: string; onApply: (from: string, until: string) => void }) {
  const [start, setStart] = useState(readable(from));
  const [end, setEnd] = useState(readable(until));
  const range = resolveRange(start, end, Date.now());
  return (
    <form
      className={style['exact']}
      onSubmit={(event) => {
        event.preventDefault();
        if (range) onApply(toAddress(start), toAddress(end));
      }}
    >
      <label>
        From
        <input value={start} spellCheck={false} onChange={(event) => setStart(event.target.value)} />
      </label>
      <label>
        Until
        <input value={end} spellCheck={false} onChange={(event) => setEnd(event.target.value)} />
      </label>
      <button type="submit" className={controls['primary']} disabled={!range}>
        Apply
      </button>
      <p className={style['note']}>
        {range ? `${dateTime(range.from)} – ${dateTime(range.until)}` : 'use now-6h, 2026-11-24 10:00 or Unix milliseconds, earlier first'}
      </p>
    </form>
  );
}

function readable(time: string): string {
  return /^\d{13}$/.test(time) ? dateTime(Number(time), true) : time;
}

/** Converts a local date to Unix milliseconds, so that a link means the same in every time zone. */
function toAddress(time: string): string {
  if (isRelative(time)) return time.trim();
  const range = resolveRange('1000000000000', time, Date.now());
  return range ? String(range.until) : time;
}

interface RefreshProps {
  interval: string;
  loading: boolean;
  onInterval: (interval: string) => void;
  onRefresh: () => void;
}

export function Refresh({ interval, loading, onInterval, onRefresh }: RefreshProps) {
  return (
    <div className={style['refresh']}>
      <Hint text="Refresh (r)">
        <button type="button" className={controls['icon']} aria-label="Refresh" aria-busy={loading} onClick={onRefresh}>
          <Icon name="refresh" />
        </button>
      </Hint>
      <Popover label={`Refresh every: ${interval || 'off'}`} align="right" face={<>{interval === '' ? 'off' : interval.replace(/(\d)(\D)/, '$1 $2')}<Icon name="chevron" /></>}>
        {(close) => (
          <div className={controls['choices']} role="group" aria-label="Refresh interval">
            {INTERVALS.map((choice) => (
              <button
                key={choice}
                type="button"
                aria-pressed={choice === interval}
                onClick={() => {
                  onInterval(choice);
                  close();
                }}
              >
                {choice === '' ? 'off' : `every ${choice.replace(/(\d)(\D)/, '$1 $2')}`}
              </button>
            ))}
          </div>
        )}
      </Popover>
    </div>
  );
}
