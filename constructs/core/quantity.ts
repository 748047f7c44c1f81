import { InvalidPropError } from './validate.ts';

const BINARY: Readonly<Record<string, number>> = { Ki: 2 ** 10, Mi: 2 ** 20, Gi: 2 ** 30, Ti: 2 ** 40 };

/**
 * Bytes of a Kubernetes memory or storage quantity.
 * Only whole numbers with a binary suffix are admitted: `512M` and `512Mi` differ by 5 % and are mixed up easily.
 * Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
 */
export function bytesOf(field: string, quantity: string): number {
  const match = /^([1-9]\d{0,8})(Ki|Mi|Gi|Ti)$/.exec(quantity);
  const factor = match?.[2] === undefined ? undefined : BINARY[match[2]];
  if (match?.[1] !== undefined && factor !== undefined) return Number(match[1]) * factor;
  throw new InvalidPropError(
    field,
    quantity,
    'a whole number followed by Ki, Mi, Gi or Ti',
    'Use for instance "512Mi".',
  );
}

/** Thousandths of a processor of a Kubernetes CPU quantity: `250m` is 250, `2` is 2000. */
export function millicoresOf(field: string, quantity: string): number {
  const match = /^([1-9]\d{0,5})(m?)$/.exec(quantity);
  if (match?.[1] !== undefined) return Number(match[1]) * (match[2] === 'm' ? 1 : 1000);
  throw new InvalidPropError(
    field,
    quantity,
    'whole cores such as "2", or thousandths such as "250m"',
    'Use for instance "100m".',
  );
}

/**
 * The form in which the API server returns an amount of memory or storage: the largest suffix without a fraction. Written
 * so at once, what is declared and what is stored never differ (`1024Mi` comes back as `1Gi`).
 */
export function canonicalBytes(field: string, quantity: string): string {
  const suffixes = Object.entries(BINARY).reverse();
  const bytes = bytesOf(field, quantity);
  const [suffix, factor] = suffixes.find(([, candidate]) => bytes % candidate === 0) ?? ['Ki', 1024];
  return `${bytes / factor}${suffix}`;
}

/** The form in which the API server returns processor time: whole cores without suffix, else thousandths. */
export function canonicalCores(field: string, quantity: string): string {
  const millicores = millicoresOf(field, quantity);
  return millicores % 1000 === 0 ? String(millicores / 1000) : `${millicores}m`;
}

/** What one container may use: what it is promised (request) and where it is stopped (limit). */
export interface Resources {
  /** Promised processor time, such as `100m`. */
  readonly cpu: string;
  /** Promised memory, such as `256Mi`. */
  readonly memory: string;
  /**
   * Most processor time.
   * @default '2': short bursts (start of a JVM, a schema migration) finish; the promise above is what is scheduled
   */
  readonly cpuLimit?: string;
  /**
   * Most memory; the container is killed above it.
   * @default the promised memory
   */
  readonly memoryLimit?: string;
}

/** Requests and limits of a container, checked: a request above its limit is refused by the API server later. */
export function resourceRequirements(field: string, resources: Resources) {
  const { cpu, memory, cpuLimit = '2', memoryLimit = memory } = resources;
  if (millicoresOf(`${field}.cpu`, cpu) > millicoresOf(`${field}.cpuLimit`, cpuLimit)) {
    throw new InvalidPropError(`${field}.cpu`, cpu, `at most cpuLimit (${cpuLimit})`, 'Raise cpuLimit.');
  }
  if (bytesOf(`${field}.memory`, memory) > bytesOf(`${field}.memoryLimit`, memoryLimit)) {
    throw new InvalidPropError(`${field}.memory`, memory, `at most memoryLimit (${memoryLimit})`, 'Raise memoryLimit.');
  }
  const amounts = (cores: string, bytes: string) => ({
    cpu: canonicalCores(`${field}.cpu`, cores),
    memory: canonicalBytes(`${field}.memory`, bytes),
  });
  return { requests: amounts(cpu, memory), limits: amounts(cpuLimit, memoryLimit) };
}
