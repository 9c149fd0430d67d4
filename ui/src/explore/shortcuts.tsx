// The dialog that lists the keys of the page; `keys` acts on them.
import { useEffect, useRef } from 'react';
import { Icon } from '../parts/icon';
import controls from '../parts/controls.module.css';
import style from './shortcuts.module.css';

const KEYS: readonly [string, string][] = [
  ['/', 'Search functions'],
  ['← ↑ → ↓', 'Move in the flame graph'],
  ['Enter', 'Zoom to the bar under the cursor'],
  ['f', 'Focus the selected function'],
  ['c', 'Copy its name'],
  ['Esc', 'Undo one of panel, search, zoom, selection'],
  ['r', 'Refresh'],
  ['e', 'Query details'],
  ['t', 'Dark or light theme'],
  ['?', 'List of keys'],
];

const POINTER: readonly [string, string][] = [
  ['Click', 'Zoom to a bar; on the top row: show all'],
  ['Right click', 'Focus, copy'],
  ['Ctrl + wheel', 'Zoom at the pointer'],
  ['Drag', 'Pan; on the time series: select a range'],
];

export function Shortcuts({ onClose }: { onClose: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const element = dialog.current!;
    element.showModal();
    return () => element.close();
  }, []);
  const list = (rows: readonly [string, string][]) => (
    <dl>
      {rows.map(([key, does]) => (
        <div key={key}>
          <dt>
            <kbd>{key}</kbd>
          </dt>
          <dd>{does}</dd>
        </div>
      ))}
    </dl>
  );
  return (
    <dialog
      ref={dialog}
      className={style['dialog']}
      aria-label="Keys"
      onClose={onClose}
      onClick={(event) => {
        if (event.target === event.currentTarget) onClose();
      }}
      onKeyDown={(event) => event.stopPropagation()}
    >
      <div className={style['head']}>
        <h2>Keys</h2>
        <button type="button" className={controls['icon']} aria-label="Close" onClick={onClose}>
          <Icon name="close" />
        </button>
      </div>
      {list(KEYS)}
      <h2 className={style['second']}>Pointer</h2>
      {list(POINTER)}
    </dialog>
  );
}
