// A choice among a few visible options.
import { Hint } from './hint';
import style from './controls.module.css';

export function Segments<T extends string>(props: {
  label: string;
  options: readonly { value: T; label: string; hint?: string }[];
  value: T;
  onChange: (value: T) => void;
}) {
  return (
    <div role="group" aria-label={props.label} className={style['segments']}>
      {props.options.map((option) => (
        <Hint key={option.value} text={option.hint ?? ''}>
          <button type="button" aria-pressed={option.value === props.value} onClick={() => props.onChange(option.value)}>
            {option.label}
          </button>
        </Hint>
      ))}
    </div>
  );
}
