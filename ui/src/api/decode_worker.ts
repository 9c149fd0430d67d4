// Decodes a large flame graph beside the page, so that the page stays responsive meanwhile.
import { buildModel } from '../flamegraph/model';
import type { SelectMergeStacktracesResponse } from './types';

interface Scope {
  onmessage: ((event: MessageEvent<string>) => void) | null;
  postMessage(message: unknown, transfer: Transferable[]): void;
}

const scope = self as unknown as Scope;

scope.onmessage = ({ data }) => {
  const { flamegraph = {}, explained } = JSON.parse(data) as SelectMergeStacktracesResponse & { explained?: unknown };
  const body = buildModel(flamegraph);
  // Each array has a buffer of its own, so all of them can be moved instead of copied.
  const transfer = Object.values(body)
    .filter((part): part is Float64Array<ArrayBuffer> => ArrayBuffer.isView(part))
    .map((part) => part.buffer);
  scope.postMessage({ body, explained }, transfer);
};
