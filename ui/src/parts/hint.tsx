// A few words about a control or a term, for whoever points at it or comes to it by key.
import { cloneElement, useEffect, useId, useLayoutEffect, useRef, useState, type ReactElement, type ReactNode } from 'react';
import style from './hint.module.css';

const ENTER_MILLISECONDS = 400;
/** Long enough to reach the words with the pointer. */
const LEAVE_MILLISECONDS = 100;
const EDGE_PIXELS = 8;
const GAP_PIXELS = 4;

interface HintProps {
  /** Empty for none. */
  text: string;
  /** What it is about: one element that takes the focus. */
  children: ReactElement<{ 'aria-describedby'?: string }>;
  /** Of what does nothing else when it is pressed. */
  pressShows?: boolean;
}

/** Escape takes it away, and nothing else with it. */
export function Hint({ text, children, pressShows = false }: HintProps) {
  const id = useId();
  const root = useRef<HTMLSpanElement>(null);
  const words = useRef<HTMLSpanElement>(null);
  const timer = useRef(0);
  const [isShown, setShown] = useState(false);
  const show = (shown: boolean, milliseconds = 0): void => {
    clearTimeout(timer.current);
    if (milliseconds === 0) setShown(shown);
    else timer.current = window.setTimeout(() => setShown(shown), milliseconds);
  };
  useEffect(() => () => clearTimeout(timer.current), []);
  useLayoutEffect(() => {
    const element = words.current;
    if (!isShown || !element) return;
    const follow = (): void => place(element, root.current!.firstElementChild!.getBoundingClientRect());
    const pressed = (event: KeyboardEvent): void => {
      if (event.key !== 'Escape') return;
      event.stopPropagation();
      // Fields of searches would be emptied.
      event.preventDefault();
      setShown(false);
    };
    element.showPopover();
    follow();
    window.addEventListener('scroll', follow, true);
    window.addEventListener('keydown', pressed, true);
    return () => {
      window.removeEventListener('scroll', follow, true);
      window.removeEventListener('keydown', pressed, true);
      element.hidePopover();
    };
  }, [isShown, text]);
  if (text === '') return children;
  return (
    <span
      ref={root}
      className={style['root']}
      onPointerEnter={(event) => event.pointerType !== 'touch' && show(true, ENTER_MILLISECONDS)}
      onPointerLeave={() => show(false, LEAVE_MILLISECONDS)}
      onFocus={(event) => event.target.matches(':focus-visible') && show(true)}
      onBlur={() => show(false)}
      onKeyDown={() => show(false)}
      onClick={() => show(pressShows)}
    >
      {cloneElement(children, { 'aria-describedby': id })}
      <span ref={words} id={id} role="tooltip" popover="manual" className={style['words']}>
        {text}
      </span>
    </span>
  );
}

/** A piece of text with a hint. */
export function Term({ hint, className = '', children }: { hint: string; className?: string | undefined; children: ReactNode }) {
  return (
    <Hint text={hint} pressShows>
      <button type="button" className={`${style['term']} ${className}`}>
        {children}
      </button>
    </Hint>
  );
}

/** Below what it is about, or above where there is no room. */
function place(element: HTMLElement, { left, top, bottom }: DOMRect): void {
  const { offsetWidth, offsetHeight } = element;
  const below = bottom + GAP_PIXELS;
  const fits = below + offsetHeight <= innerHeight - EDGE_PIXELS;
  element.style.setProperty('left', `${Math.max(EDGE_PIXELS, Math.min(left, innerWidth - EDGE_PIXELS - offsetWidth))}px`);
  element.style.setProperty('top', `${fits ? below : Math.max(EDGE_PIXELS, top - GAP_PIXELS - offsetHeight)}px`);
}
