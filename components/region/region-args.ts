import type { Realm } from '@somagent/bootstrap/realm-types.ts';
import type { ImageName } from '@somagent/images';
import type { Transform } from '../bridge/index.ts';
import type { RegionSize } from './sizes.ts';

/** The products of a region; each has a `transform` slot. */
export type ProductName =
  | 'namespaces'
  | 'bootstrap'
  | 'postgres'
  | 'keycloak'
  | 'temporal'
  | 'slm'
  | 'orchestrator'
  | 'gateway';

/** Last word on the objects of each product. */
export type Transforms = Readonly<Partial<Record<ProductName, Transform>>>;

/** Arguments of {@link Region}: plain values, so that a preview knows every object. */
export interface RegionArgs {
  /** The full reference of one of our images, tag included. */
  readonly image: (name: ImageName) => string;
  readonly size: RegionSize;
  /** Where clients reach the gateway, such as `https://localhost:8443`. */
  readonly gatewayUrl: string;
  /** Where clients reach Keycloak; the issuer of every token begins with it. */
  readonly identityUrl: string;
  /** Port of every node that leads to the gateway. @default none: something else leads there */
  readonly gatewayNodePort?: number | undefined;
  /** Port of every node that leads to Keycloak. @default none */
  readonly identityNodePort?: number | undefined;
  /** Where the API server is, as CIDRs: pods that use it may reach no other address. @default any address */
  readonly apiServerCidrs?: readonly string[] | undefined;
  /** @default the cluster's default StorageClass */
  readonly storageClass?: string | undefined;
  /** `kuberay` where its operator is installed, else plain `pods`. */
  readonly rayRenderer: 'pods' | 'kuberay';
  readonly realm: Realm;
  readonly transform?: Transforms | undefined;
}
