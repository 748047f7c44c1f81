/** What a wrong prop says: the field, the value it got, what is allowed and what to do. */
export class InvalidPropError extends Error {
  override readonly name = 'InvalidPropError';

  constructor(field: string, value: unknown, allowed: string, fix: string) {
    super(`${field} is ${show(value)}; allowed: ${allowed}. ${fix}`);
  }
}

function show(value: unknown): string {
  return JSON.stringify(value) ?? String(value);
}

/** A DNS label (RFC 1123): what Kubernetes admits as the name of a Service or namespace. */
export function dnsLabel(field: string, value: string): string {
  if (/^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$/.test(value)) return value;
  throw new InvalidPropError(
    field,
    value,
    'a DNS label: 1–63 of a–z, 0–9 and "-", starting with a letter, ending with a letter or digit',
    `Use for instance "${suggestLabel(value)}".`,
  );
}

function suggestLabel(value: string): string {
  const label = value
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^[^a-z]+/, '')
    .slice(0, 63)
    .replace(/-+$/, '');
  return label === '' ? 'example' : label;
}

/** A whole number within bounds, both included. */
export function integerBetween(field: string, value: number, least: number, most: number): number {
  if (Number.isInteger(value) && value >= least && value <= most) return value;
  const nearest = Number.isFinite(value) ? Math.min(most, Math.max(least, Math.round(value))) : least;
  throw new InvalidPropError(field, value, `a whole number from ${least} to ${most}`, `Use for instance ${nearest}.`);
}

/** A TCP port. */
export function port(field: string, value: number): number {
  return integerBetween(field, value, 1, 65_535);
}

/** A port of the default NodePort range of the API server (`--service-node-port-range`). */
export function nodePort(field: string, value: number): number {
  return integerBetween(field, value, 30_000, 32_767);
}

/** Number of members of a quorum: odd, so that losing one member keeps a majority at the least cost. */
export function oddQuorum(field: string, members: number): number {
  if (Number.isInteger(members) && members >= 1 && members <= 9 && members % 2 === 1) return members;
  throw new InvalidPropError(
    field,
    members,
    'an odd number from 1 to 9',
    'Use 3: it survives the loss of one member (an even number costs one more and survives no more).',
  );
}

/** One of a closed list of words. */
export function oneOf<Word extends string>(field: string, value: string, words: readonly Word[]): Word {
  const word = words.find((candidate) => candidate === value);
  if (word !== undefined) return word;
  throw new InvalidPropError(field, value, words.map((w) => `"${w}"`).join(', '), `Use "${words[0]}".`);
}

/** A list without repeated values. */
export function distinct(field: string, values: readonly string[]): readonly string[] {
  const repeated = values.find((value, index) => values.indexOf(value) !== index);
  if (repeated === undefined) return values;
  throw new InvalidPropError(field, values, 'each value once', `Remove the second "${repeated}".`);
}

/** An `https` address without path, query or trailing slash, such as `https://login.example.com:8443`. */
export function httpsOrigin(field: string, value: string): string {
  const url = URL.canParse(value) ? new URL(value) : undefined;
  if (url?.protocol === 'https:' && url.origin === value) return value;
  throw new InvalidPropError(
    field,
    value,
    'an https origin without path or trailing slash',
    `Use for instance "https://${url?.host || 'login.example.com'}".`,
  );
}

/** A container image with an explicit tag or digest: a floating image would change under a running platform. */
export function pinnedImage(field: string, value: string): string {
  const last = value.slice(value.lastIndexOf('/') + 1);
  if (/^\S+$/.test(value) && /[:@][\w]/.test(last) && !last.endsWith(':latest')) return value;
  throw new InvalidPropError(
    field,
    value,
    'an image with a tag other than "latest", or a digest',
    'Take the reference from the image catalogue, or append ":<tag>".',
  );
}

/** A time in the five fields of cron, such as `17 3 * * *`. */
export function cronSchedule(field: string, value: string): string {
  if (/^([\d*][\d*,/-]*\s+){4}[\d*][\d*,/-]*$/.test(value)) return value;
  throw new InvalidPropError(field, value, 'the five fields of cron', 'Use for instance "17 3 * * *".');
}
