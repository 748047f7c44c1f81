import type { ReceivedSpan } from './otel-collector.ts';

/** Of spans that concern no tenant. */
const noTenant = 'platform';

/** What is wrong with the tenants of spans, in words: none, a lost one, or another than that of the span above. */
export function tenantGaps(spans: readonly ReceivedSpan[]): string[] {
  const byId = new Map(spans.map((span) => [span.spanId, span]));
  return spans.flatMap((span) => {
    const tenant = span.attributes['soma.tenant'];
    if (tenant === undefined) return [`${span.name}: it has no tenant`];
    if (tenant === 'unknown') return [`${span.name}: its tenant is unknown`];
    const above = byId.get(span.parentId);
    const over = above?.attributes['soma.tenant'];
    if (above === undefined || over === undefined || over === noTenant || over === tenant) return [];
    return [`${span.name}: its tenant is ${tenant}, that of ${above.name} is ${over}`];
  });
}
