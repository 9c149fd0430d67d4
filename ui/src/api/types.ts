// The messages of `querier.v1` that the page uses, as Connect writes them in JSON: 64-bit numbers
// are strings, absent fields are zero. Written by hand: the page needs few of forty messages.

export interface Label {
  name?: string;
  value?: string;
}

export interface SeriesRequest {
  matchers: string[];
  labelNames: string[];
  start: string;
  end: string;
}
export interface SeriesResponse {
  labelsSet?: { labels?: Label[] }[];
}

export interface LabelNamesRequest {
  matchers: string[];
  start: string;
  end: string;
}
export interface LabelValuesRequest extends LabelNamesRequest {
  name: string;
}
export interface LabelsResponse {
  names?: string[];
}

export interface SelectMergeStacktracesRequest {
  profileTypeID: string;
  labelSelector: string;
  start: string;
  end: string;
  maxNodes: string;
}
export interface FlameGraph {
  names?: string[];
  levels?: { values?: (string | number)[] }[];
  total?: string | number;
  maxSelf?: string | number;
}
export interface SelectMergeStacktracesResponse {
  flamegraph?: FlameGraph;
}

export interface SelectSeriesRequest {
  profileTypeID: string;
  labelSelector: string;
  start: string;
  end: string;
  groupBy: string[];
  /** Seconds. */
  step: number;
  limit?: string;
}
export interface SelectSeriesResponse {
  series?: { labels?: Label[]; points?: { value?: number; timestamp?: string | number }[] }[];
}

export interface GetProfileStatsResponse {
  dataIngested?: boolean;
  /** Unix milliseconds. */
  oldestProfileTime?: string | number;
  newestProfileTime?: string | number;
}
