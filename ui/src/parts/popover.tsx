// A button with a panel below it: opens on click, closes on Escape, outside press or choice.
import { useEffect, useId, useLayoutEffect, useRef, useState, type ReactNode } from 'react';
import { Hint } from './hint';
import style from './popover.module.css';

/** Between a panel and the edge of the page. */
const EDGE_PIXELS = 8;

export interface PopoverProps {
  /** What the button shows. */
  face: ReactNode;
  /** Name for those who do not see it. */
  label: string;
  hint?: string;
  className?: string;
  align?: 'left' | 'right';
  /** Whether the face may be cut where room is short, and if so before or after those of others. */
  shrinks?: 'first' | 'last';
  children: (close: () => void) => ReactNode;
}

export function Popover({ face, label, hint = '', className, align = 'left', shrinks, children }: PopoverProps) {
  const [open, setOpen] = useState(false);
  const root = useRef<HTMLDivElement>(null);
  const button = useRef<HTMLButtonElement>(null);
  const panel = useId();
  const content = useRef<HTMLDivElement>(null);

  // The panel hangs below its button, but never over the edge of the page.
  useLayoutEffect(() => {
    const element = content.current;
    if (!open || !element) return;
    const place = (): void => {
      element.style.setProperty('translate', '0');
      const { left, right } = element.getBoundingClientRect();
      const over = Math.max(0, right - (window.innerWidth - EDGE_PIXELS));
      element.style.setProperty('translate', `${left - over < EDGE_PIXELS ? EDGE_PIXELS - left : -over}px`);
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
