import type * as pulumi from '@pulumi/pulumi';

/** What every Kubernetes object has. Any value below may be a `pulumi.Output` except where the type says otherwise. */
export interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: ManifestMetadata;
  readonly [field: string]: unknown;
}

/** Name and namespace are identity, hence plain strings: a resource must be nameable in a preview. */
export interface ManifestMetadata {
  readonly name: string;
  readonly namespace?: string;
  readonly labels?: Readonly<Record<string, pulumi.Input<string>>>;
  readonly annotations?: Readonly<Record<string, pulumi.Input<string>>>;
  readonly [field: string]: unknown;
}

/**
 * The type token under which the Kubernetes provider knows an object: `kubernetes:core/v1:ConfigMap`,
 * `kubernetes:apps/v1:Deployment`, `kubernetes:kafka.strimzi.io/v1:Kafka`. The core group has no name on the wire and
 * is called `core` in tokens; `kubernetes:v1:ConfigMap` is unknown to the provider.
 */
export function typeToken(manifest: Pick<Manifest, 'apiVersion' | 'kind'>): string {
  const version = manifest.apiVersion.includes('/') ? manifest.apiVersion : `core/${manifest.apiVersion}`;
  return `kubernetes:${version}:${manifest.kind}`;
}

/**
 * The logical name of an object inside its parent. It is identity: parent, kind, namespace and name, nothing that is
 * tidied later. A URN separates its parts by `::`, which a cluster role may legally contain, so that is escaped.
 */
export function logicalName(parent: string, manifest: Manifest): string {
  const { name, namespace } = manifest.metadata;
  const parts = namespace === undefined ? [parent, manifest.kind, name] : [parent, manifest.kind, namespace, name];
  return parts.join('/').replaceAll('%', '%25').replaceAll('::', '%3A%3A');
}

/** How messages name an object: `apps/v1 Deployment local-services/gateway`. */
export function describe(manifest: Pick<Manifest, 'apiVersion' | 'kind' | 'metadata'>): string {
  const { name, namespace } = manifest.metadata;
  return `${manifest.apiVersion} ${manifest.kind} ${namespace === undefined ? name : `${namespace}/${name}`}`;
}
