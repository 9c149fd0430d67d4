// The query of a page that opens without one: the first service besides the server itself, with its preferred profile type.
import { useEffect } from 'react';
import { askStats } from '../api/queries';
import { useAnswer } from '../api/use_answer';
import { preferredType } from '../format/profile_type';
import { serviceOf, withService } from '../state/query';
import type { ExploreState } from '../state/url';
import type { Change } from '../state/use_url_state';

/** Service name of the server's own profiles. */
const OWN_SERVICE = 'pyrograph';
/** Refresh interval of such a page; one of those in the menu. */
const FIRST_REFRESH = '10s';
/** If no data is older, the page opens with `NEW_FROM`: a few seconds of profiles would drown in an hour. */
const NEW_MILLISECONDS = 15 * 60_000;
const NEW_FROM = 'now-15m';

const hasRangeInAddress = (): boolean => new URLSearchParams(location.search).has('from');

export function useFirstQuery({ query, from, refresh }: ExploreState, services: Map<string, string[]> | null, change: Change): void {
  const service = serviceOf(query);
  const isNeeded = query.type === '' && services !== null && services.size > 0;
  const age = useAnswer(isNeeded ? 'age of the data' : null, askStats);
  useEffect(() => {
    if (!isNeeded || (age.value === null && age.error === null)) return;
    const names = [...services.keys()];
    const first = service ?? names.find((name) => name !== OWN_SERVICE) ?? names[0]!;
    const type = preferredType(services.get(first) ?? []);
    if (type === '') return;
    const isNew = age.value?.oldest != null && Date.now() - age.value.oldest < NEW_MILLISECONDS;
    change(
      { query: { ...withService(query, first), type }, from: isNew && !hasRangeInAddress() ? NEW_FROM : from, refresh: refresh || FIRST_REFRESH },
      'replace',
    );
  }, [isNeeded, age.value, age.error, services, query, service, from, refresh, change]);
}
