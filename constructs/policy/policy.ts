import { Construct } from 'constructs';
import { instanceName } from '../core/labels.ts';
import type { PodNetwork } from '../core/pod-network.ts';
import { placeOf } from '../core/region-chart.ts';
import type { SecretPlan } from '../core/secret-plan.ts';
import { type Connectable, type Connection, JobWorkload } from '../core/workload.ts';
import type { Bucket, ObjectStore } from '../object-store/object-store.ts';

const BUCKET = 'policy';
const PUBLISHER = 'policy-publisher';
const READER = 'policy-reader';

/** The bucket of policies: to be named in the props of the {@link ObjectStore}. */
export const policyBucket: Bucket = { name: BUCKET, readers: [READER], writers: [PUBLISHER] };

/** Options of {@link Policy}. */
export interface PolicyProps {
  /** Image `somagent/policy`: the compiled corpus and its publisher. */
  readonly image: string;
  /** Where the signing key is asked for. */
  readonly plan: SecretPlan;
  /** Where bundles lie; it must have {@link policyBucket}. */
  readonly store: ObjectStore;
}

/**
 * The policy corpus, signed inside the cluster and published by a Job. The Job is named by its image: a changed corpus
 * is a new image, hence a new Job; the same one publishes nothing twice.
 */
export class Policy extends Construct {
  /** Name of the Job, hash included. */
  readonly jobName: string;
  readonly #instance: string;
  readonly #props: PolicyProps;

  constructor(scope: Construct, id: string, props: PolicyProps) {
    super(scope, id);
    this.#instance = instanceName(this);
    this.#props = props;
    this.jobName = this.#publication(props).jobName;
  }

  /**
   * What a service that asks policies is wired to: `POLICY_URL`, a read-only key below /secrets/policy, the public key
   * below /secrets/policy-key. The pod needs the scratch folder of {@link cache}.
   */
  consumer(): Connectable {
    return { connect: (client) => this.#connect(client) };
  }

  /** Scratch folder for the last good bundle, to be spread into the `scratch` of the pod. */
  static readonly cache: Readonly<Record<string, string>> = { '/var/cache/policy': '16Mi' };

  #connect(client: PodNetwork): Connection {
    const { plan, store } = this.#props;
    client.allowTo(store.network, [store.port]);
    return {
      env: {
        POLICY_URL: store.bucketUrl(BUCKET),
        POLICY_CREDENTIALS_DIR: '/secrets/policy',
        POLICY_CA_FILE: '/secrets/ca/ca.crt',
        POLICY_PUBLIC_KEY_FILE: '/secrets/policy-key/public.pem',
        POLICY_CACHE_DIR: '/var/cache/policy',
      },
      secrets: [
        { path: '/secrets/policy', secret: store.credentials(READER, client.namespace) },
        { path: '/secrets/policy-key', secret: plan.publicKey(this.#keyName, client.namespace) },
        { path: '/secrets/ca', secret: plan.authorityCertificate(client.namespace) },
      ],
    };
  }

  get #keyName(): string {
    return `${this.#instance}-signing`;
  }

  #publication({ image, plan, store }: PolicyProps): JobWorkload {
    const { namespace } = placeOf(this);
    return new JobWorkload(this, 'publish', {
      product: 'policy',
      instance: this.#instance,
      component: 'publish',
      image,
      command: ['node', '/app/main.js'],
      connections: [store.bucketUser(BUCKET, PUBLISHER)],
      env: { PRIVATE_KEY_FILE: '/secrets/policy-signing/private.pem' },
      secrets: [{ path: '/secrets/policy-signing', secret: plan.signingKey(this.#keyName, 'ES256', namespace) }],
      resources: { cpu: '50m', memory: '64Mi', memoryLimit: '256Mi' },
    });
  }
}
