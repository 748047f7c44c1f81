import * as pulumi from '@pulumi/pulumi';
import type { Manifest } from './manifest.ts';

/**
 * Writes an object the way that the API server will store it, so that a second `up` finds nothing to do: the server
 * rewrites quantities ('1000m' becomes '1') and drops zero values of fields that its Go types mark `omitempty`. The
 * provider compares the program's input with what the server stored. Custom resources are stored as they are written.
 * Source: https://github.com/kubernetes/apimachinery/blob/master/pkg/api/resource/quantity.go (CanonicalizeBytes).
 */
export function normalise(manifest: Manifest): Manifest {
  const cleaned = withoutNothing(manifest) as Manifest;
  return isBuiltIn(manifest.apiVersion) ? (canonical(cleaned, '') as Manifest) : cleaned;
}

/** Groups whose types are compiled into the API server; everything else is a custom resource. */
function isBuiltIn(apiVersion: string): boolean {
  const group = apiVersion.includes('/') ? (apiVersion.split('/')[0] ?? '') : '';
  return group === '' || !group.includes('.') || (group.endsWith('.k8s.io') && builtInGroups.has(group));
}

const builtInGroups = new Set([
  'admissionregistration.k8s.io',
  'apiextensions.k8s.io',
  'apiregistration.k8s.io',
  'coordination.k8s.io',
  'discovery.k8s.io',
  'flowcontrol.apiserver.k8s.io',
  'networking.k8s.io',
  'node.k8s.io',
  'rbac.authorization.k8s.io',
  'scheduling.k8s.io',
  'storage.k8s.io',
]);

/** Maps whose values are quantities. */
const quantityMaps = new Set(['limits', 'requests', 'capacity', 'hard']);
const quantityFields = new Set(['sizeLimit', 'averageValue', 'divisor']);
/** Go maps marked `omitempty`; an empty struct behind a pointer (`emptyDir: {}`, `podSelector: {}`) means something and stays. */
const droppedWhenEmpty = new Set([
  'labels',
  'annotations',
  'nodeSelector',
  'matchLabels',
  'data',
  'binaryData',
  'limits',
  'requests',
]);
/** Plain Go booleans and numbers marked `omitempty`; pointers (`replicas`, `runAsNonRoot`) stay. */
const droppedWhenZero = new Set([
  'hostNetwork',
  'hostPID',
  'hostIPC',
  'readOnly',
  'stdin',
  'stdinOnce',
  'tty',
  'paused',
  'publishNotReadyAddresses',
  'initialDelaySeconds',
  'minReadySeconds',
]);
/** Contents of users, never touched. */
const opaque = new Set(['data', 'binaryData', 'stringData', 'annotations', 'labels', 'matchLabels', 'schema']);
/** Arrays without `omitempty`. */
const keptWhenEmpty = new Set(['rules', 'containers']);

function canonical(value: unknown, key: string): unknown {
  if (value === null || typeof value !== 'object' || pulumi.Output.isInstance(value)) return value;
  if (Array.isArray(value)) return value.map((item) => canonical(item, ''));
  const result: Record<string, unknown> = {};
  for (const [name, item] of Object.entries(value)) {
    if (quantityMaps.has(key) || quantityFields.has(name)) result[name] = quantity(item);
    else if (!isDropped(name, item)) result[name] = opaque.has(name) ? item : canonical(item, name);
  }
  return result;
}

function isDropped(key: string, value: unknown): boolean {
  if (value === false || value === 0) return droppedWhenZero.has(key);
  if (Array.isArray(value)) return value.length === 0 && !keptWhenEmpty.has(key);
  if (value === null || typeof value !== 'object' || pulumi.Output.isInstance(value)) return false;
  return droppedWhenEmpty.has(key) && Object.keys(value).length === 0;
}

/** Removes `undefined` and `null`, in lists too: server-side apply would read null as "take this field away". */
function withoutNothing(value: unknown): unknown {
  if (value === null || typeof value !== 'object' || pulumi.Output.isInstance(value)) return value;
  if (Array.isArray(value)) return value.filter((item) => item !== undefined && item !== null).map(withoutNothing);
  const result: Record<string, unknown> = {};
  for (const [key, item] of Object.entries(value)) {
    if (item !== undefined && item !== null) result[key] = withoutNothing(item);
  }
  return result;
}

const decimalSuffixes = ['n', 'u', 'm', '', 'k', 'M', 'G', 'T', 'P', 'E'] as const;
const binarySuffixes = ['', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi', 'Ei'] as const;
const quantityPattern = /^([+-]?)(\d+)(?:\.(\d+))?(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$/;

/**
 * The canonical form of a Kubernetes quantity: the largest suffix that leaves no fraction, within the family it was
 * written in ('1000m' → '1', '0.5' → '500m', '1024Mi' → '1Gi', '1500Mi' stays). Anything that is not a plain
 * quantity (an Output, an exponent) is returned as it is.
 */
export function quantity(value: unknown): unknown {
  if (typeof value !== 'string' && typeof value !== 'number') return value;
  const match = quantityPattern.exec(String(value));
  if (match === null) return value;
  const [, sign = '', whole = '', fraction = '', suffix = ''] = match;
  const digits = BigInt(whole + fraction);
  const text = suffix.endsWith('i')
    ? binary(digits, fraction.length, suffix)
    : decimal(digits, fraction.length, suffix);
  return text === undefined ? value : `${sign === '-' && digits !== 0n ? '-' : ''}${text}`;
}

function binary(digits: bigint, decimals: number, suffix: string): string | undefined {
  const scaled = digits * 1024n ** BigInt(binarySuffixes.indexOf(suffix as 'Ki'));
  const divisor = 10n ** BigInt(decimals);
  if (scaled % divisor !== 0n) return undefined;
  return largest(scaled / divisor, 1024n, binarySuffixes);
}

function decimal(digits: bigint, decimals: number, suffix: string): string | undefined {
  const nanos = digits * 1000n ** BigInt(decimalSuffixes.indexOf(suffix as 'm'));
  const divisor = 10n ** BigInt(decimals);
  if (nanos % divisor !== 0n) return undefined;
  return largest(nanos / divisor, 1000n, decimalSuffixes);
}

function largest(amount: bigint, base: bigint, suffixes: readonly string[]): string {
  if (amount === 0n) return '0';
  let rest = amount;
  let index = 0;
  while (rest % base === 0n && index < suffixes.length - 1) {
    rest /= base;
    index += 1;
  }
  return `${rest}${suffixes[index] ?? ''}`;
}
