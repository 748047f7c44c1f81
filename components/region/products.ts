import type { RegionChart, SecretPlan } from '@somagent/constructs';
import type { PlacedProduct, RegionArgs } from './region-args.ts';

/** What the products of every plane are wired from. */
export interface Wiring {
  /** Where each product's objects go. */
  readonly charts: Readonly<Record<PlacedProduct, RegionChart>>;
  /** Where secrets are asked for; the bootstrap Job makes them. */
  readonly plan: SecretPlan;
  readonly args: RegionArgs;
}

/** Where the API server is, for products whose pods use it. */
export function apiServer({ apiServerCidrs: cidrs }: RegionArgs) {
  return cidrs === undefined ? {} : { apiServer: { cidrs } };
}

/** The StorageClass of volumes, where the cluster's default is not it. */
export function volumes({ storageClass }: RegionArgs) {
  return storageClass === undefined ? {} : { storageClass };
}

/** Images of others, where their own server runs; mirrored under the registry of the environment. */
const upstreamImages = {
  qdrant: 'qdrant/qdrant:v1.16.2-unprivileged',
  clickhouse: 'clickhouse/clickhouse-server:26.7',
} as const;

/** The full reference of an image of others. */
export const upstream = (name: keyof typeof upstreamImages, { registry }: RegionArgs): string =>
  `${registry}/${upstreamImages[name]}`;

const ipAddress = /^\d{1,3}(?:\.\d{1,3}){3}$/;

/** Under which names a server's certificate must be good, and the port by which it leaves the cluster. */
export function reachable(url: string, nodePort: number | undefined) {
  const { hostname } = new URL(url);
  const local = hostname === 'localhost' ? ['127.0.0.1'] : [];
  return {
    certificateNames: ipAddress.test(hostname) ? [] : [hostname],
    certificateAddresses: ipAddress.test(hostname) ? [hostname] : local,
    ...(nodePort !== undefined && { exposure: { nodePort } }),
  };
}
