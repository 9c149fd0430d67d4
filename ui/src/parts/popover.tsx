// A button with a panel below it. A click opens the panel; Escape, a press outside or a choice closes it.
import { useEffect, useId, useLayoutEffect, useRef, useState, type ReactNode } from 'react';
import { Hint } from './hint';
import style from './popover.module.css';

/** Minimum distance of a panel from the edge of the page. */
const EDGE_PIXELS = 8;

export interface PopoverProps {
  /** Content of the button. */
  face: ReactNode;
  /** Accessible name. */
  label: string;
  hint?: string;
  className?: string;
  align?: 'left' | 'right';
  /** Allows the face to be cut, before or after the faces of other popovers. */
  shrinks?: 'first' | 'last';
  children: (close: () => void) => ReactNode;
}

export function Popover({ face, label, hint = '', className, align = 'left', shrinks, children }: PopoverProps) {
  const [open, setOpen] = useState(false);
  const root = useRef<HTMLDivElement>(null);
  const button = useRef<HTMLButtonElement>(null);
  const panel = useId();
  const content = useRef<HTMLDivElement>(null);

  // The panel is shifted to stay inside the page.
  useLayoutEffect(() => {
    const element = content.current;
    if (!open || !element) return;
    const place = (): void => {
      element.style.setProperty('translate', '0');
      const { left, right } = element.getBoundingClientRect();
      const overflow = Math.max(0, right - (window.innerWidth - EDGE_PIXELS));
      element.style.setProperty('translate', `${left - overflow < EDGE_PIXELS ? EDGE_PIXELS - left : -overflow}px`);
    };
    const resized = new ResizeObserver(place);
    resized.observe(element);
    window.addEventListener('resize', place);
    return () => {
      resized.disconnect();
      window.removeEventListener('resize', place);
    };
  }, [open]);

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
      className={`${style['root']} ${shrinks ? `${style['shrinks']} ${style[shrinks]}` : ''}`}
      onKeyDown={(event) => {
        if (event.key !== 'Escape' || !open) return;
        event.stopPropagation();
        close();
      }}
      onBlur={(event) => {
        if (open && event.relatedTarget && !root.current?.contains(event.relatedTarget as Node)) setOpen(false);
      }}
    >
      <Hint text={hint}>
        <button
          ref={button}
          type="button"
          className={`${style['button']} ${className ?? ''}`}
          aria-haspopup="dialog"
          aria-expanded={open}
          aria-controls={open ? panel : undefined}
          aria-label={label}
          onClick={() => setOpen(!open)}
        >
          {face}
        </button>
      </Hint>
      {open && (
        <div ref={content} id={panel} role="dialog" aria-label={label} className={`${style['panel']} ${align === 'right' ? style['right'] : ''}`}>
          {children(close)}
        </div>
      )}
    </div>
  );
}
