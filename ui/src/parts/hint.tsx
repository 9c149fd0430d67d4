// A short explanation of a control or a term, shown on hover and on keyboard focus.
import { cloneElement, useEffect, useId, useLayoutEffect, useRef, useState, type ReactElement, type ReactNode } from 'react';
import style from './hint.module.css';

const ENTER_MILLISECONDS = 400;
/** Long enough to move the pointer onto the hint. */
const LEAVE_MILLISECONDS = 100;
const EDGE_PIXELS = 8;
const GAP_PIXELS = 4;

interface HintProps {
  /** Empty for none. */
  text: string;
  /** The explained element; must be focusable. */
  children: ReactElement<{ 'aria-describedby'?: string }>;
  /** For elements without another action on press. */
  showsOnPress?: boolean;
}

/** Escape closes only the hint. */
export function Hint({ text, children, showsOnPress = false }: HintProps) {
  const id = useId();
  const root = useRef<HTMLSpanElement>(null);
  const bubble = useRef<HTMLSpanElement>(null);
  const timer = useRef(0);
  const [isShown, setShown] = useState(false);
  const show = (shown: boolean, milliseconds = 0): void => {
    clearTimeout(timer.current);
    if (milliseconds === 0) setShown(shown);
    else timer.current = window.setTimeout(() => setShown(shown), milliseconds);
  };
  useEffect(() => () => clearTimeout(timer.current), []);
  useLayoutEffect(() => {
    const element = bubble.current;
    if (!isShown || !element) return;
    const follow = (): void => place(element, root.current!.firstElementChild!.getBoundingClientRect());
    const pressed = (event: KeyboardEvent): void => {
      if (event.key !== 'Escape') return;
      event.stopPropagation();
      // Escape would clear a search field.
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
      onClick={() => show(showsOnPress)}
    >
      {cloneElement(children, { 'aria-describedby': id })}
      <span ref={bubble} id={id} role="tooltip" popover="manual" className={style['words']}>
        {text}
      </span>
    </span>
  );
}

/** Text with a hint. */
export function Term({ hint, className = '', children }: { hint: string; className?: string | undefined; children: ReactNode }) {
  return (
    <Hint text={hint} showsOnPress>
      <button type="button" className={`${style['term']} ${className}`}>
        {children}
      </button>
    </Hint>
  );
}

/** Below the explained element, or above it if there is no room. */
function place(element: HTMLElement, { left, top, bottom }: DOMRect): void {
  const { offsetWidth, offsetHeight } = element;
  const below = bottom + GAP_PIXELS;
  const fits = below + offsetHeight <= innerHeight - EDGE_PIXELS;
  element.style.setProperty('left', `${Math.max(EDGE_PIXELS, Math.min(left, innerWidth - EDGE_PIXELS - offsetWidth))}px`);
  element.style.setProperty('top', `${fits ? below : Math.max(EDGE_PIXELS, top - GAP_PIXELS - offsetHeight)}px`);
}
