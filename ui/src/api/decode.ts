// From the text of an answer to a flame graph: at once when it is small, in a worker when not.
import { buildModel, type FlameModel } from '../flamegraph';
import type { SelectMergeStacktracesResponse } from './types';

/** Characters; parsing this much takes a few frames. */
const SMALL = 512 * 1024;

export async function decodeFlameGraph(text: string, signal: AbortSignal): Promise<FlameModel> {
  if (text.length <= SMALL) return buildModel((JSON.parse(text) as SelectMergeStacktracesResponse).flamegraph ?? {});
  const worker = new Worker(new URL('./decode_worker.ts', import.meta.url), { type: 'module' });
  try {
    return await new Promise<FlameModel>((resolve, reject) => {
      worker.onmessage = ({ data }: MessageEvent<FlameModel>) => resolve(data);
      worker.onerror = () => reject(new SyntaxError('the answer is not JSON'));
      signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
      worker.postMessage(text);
    });
  } finally {
    worker.terminate();
  }
}
