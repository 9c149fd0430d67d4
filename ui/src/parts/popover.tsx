// A button with a panel below it: opens on click, closes on Escape, outside press or choice.
import { useEffect, useId, useRef, useState, type ReactNode } from 'react';
import style from './popover.module.css';

export interface PopoverProps {
  /** What the button shows. */
  face: ReactNode;
  /** Name for those who do not see it. */
  label: string;
  title?: string;
  className?: string;
  align?: 'left' | 'right';
  children: (close: () => void) => ReactNode;
}

export function Popover({ face, label, title, className, align = 'left', children }: PopoverProps) {
  const [open, setOpen] = useState(false);
  const root = useRef<HTMLDivElement>(null);
  const button = useRef<HTMLButtonElement>(null);
  const panel = useId();

  useEffect(() => {
    if (!open) return;
    const pressed = (event: PointerEvent): void => {
      if (!root.current?.contains(event.target as Node)) setOpen(false);
    };
    window.addEventListener('pointerdown', pressed, true);
    return () => window.removeEventListener('pointerdown', pressed, true);
  }, [open]);

  const close = (): void => {
    setOpen(false);
    button.current?.focus();
  };
  return (
    <div
      ref={root}
      className={style['root']}
      onKeyDown={(event) => {
        if (event.key !== 'Escape' || !open) return;
        event.stopPropagation();
        close();
      }}
      onBlur={(event) => {
        if (open && event.relatedTarget && !root.current?.contains(event.relatedTarget as Node)) setOpen(false);
      }}
    >
      <button
        ref={button}
        type="button"
        className={`${style['button']} ${className ?? ''}`}
        aria-haspopup="dialog"
        aria-expanded={open}
        aria-controls={open ? panel : undefined}
        aria-label={label}
        title={title}
        onClick={() => setOpen(!open)}
      >
        {face}
      </button>
      {open && (
        <div id={panel} role="dialog" aria-label={label} className={`${style['panel']} ${align === 'right' ? style['right'] : ''}`}>
          {children(close)}
        </div>
      )}
    </div>
  );
}
