import { Construct } from 'constructs';
import { instanceName } from '../core/labels.ts';
import type { PodNetwork } from '../core/pod-network.ts';
import type { Resources } from '../core/quantity.ts';
import { placeOf } from '../core/region-chart.ts';
import type { SecretPlan } from '../core/secret-plan.ts';
import { type Connectable, type Connection, ServiceAddress, StatefulWorkload } from '../core/workload.ts';

/** A protocol between machines, as that of a broker: who asks proves it by the signature below the checkpoint. */
const TLOG = 8443;
const HEALTH = 8081;

/** Options of {@link AuditWitness}. */
export interface AuditWitnessProps {
  /** Image `somagent/audit`. */
  readonly image: string;
  /** Where its certificate and its key are asked for. */
  readonly plan: SecretPlan;
  /**
   * Name of the log that it watches, unique in the world: a host and a path without a scheme.
   * @default '<region>.somagent/audit'
   */
  readonly origin?: string;
  /** Its name in its signatures. @default '<region>.somagent/witness' */
  readonly name?: string;
  /** Name of the key pair of the log in the plan. @default '<id>-log-key' */
  readonly logKey?: string;
  /** Space for the last head, as a Kubernetes quantity. @default '16Mi' */
  readonly storage?: string;
  /** Class of the volume. @default the cluster's default class */
  readonly storageClass?: string;
  /** Of the pod. @default 10m and 96Mi promised, 192Mi at most */
  readonly resources?: Resources;
}

/**
 * The second key below each checkpoint of the audit log. It remembers the last head on a volume of its own and signs
 * only what continues it. Put it into another plane than the log: who rules one of the two namespaces can't forge.
 * Source: https://c2sp.org/tlog-witness
 */
export class AuditWitness extends Construct implements Connectable {
  /** Address within the cluster. */
  readonly url: string;
  readonly network: PodNetwork;
  /** Name of the log that it watches. */
  readonly origin: string;
  /** Its name in its signatures. */
  readonly witnessName: string;
  /** Name of the key pair of the log in the plan. */
  readonly logKey: string;
  readonly #plan: SecretPlan;
  readonly #key: string;

  constructor(scope: Construct, id: string, props: AuditWitnessProps) {
    super(scope, id);
    const { namespace } = placeOf(this);
    const identity = { product: 'audit', instance: instanceName(this), component: 'witness' };
    this.origin = props.origin ?? `${props.plan.region}.somagent/audit`;
    this.witnessName = props.name ?? `${props.plan.region}.somagent/witness`;
    this.logKey = props.logKey ?? `${identity.instance}-log-key`;
    this.#plan = props.plan;
    this.#key = `${identity.instance}-key`;
    const address = new ServiceAddress(this, 'address', {
      ...identity,
      name: identity.instance,
      ports: { tlog: TLOG },
      selector: { 'app.kubernetes.io/instance': identity.instance, 'app.kubernetes.io/component': 'witness' },
    });
    this.url = `https://${address.host}:${TLOG}`;
    const names = [identity.instance, address.host];
    const request = { commonName: identity.instance, dnsNames: names, ipAddresses: [], usages: ['server' as const] };
    const witness = new StatefulWorkload(this, 'witness', {
      ...identity,
      name: identity.instance,
      image: props.image,
      command: ['node', '/app/main.js', 'witness'],
      env: this.#environment(),
      ports: { tlog: TLOG, health: HEALTH },
      secrets: [
        {
          path: '/secrets/witness-tls',
          secret: props.plan.certificate(`${identity.instance}-tls`, request, namespace),
        },
        { path: '/secrets/witness-key', secret: props.plan.signingKey(this.#key, 'Ed25519', namespace) },
        { path: '/secrets/log-key', secret: props.plan.publicKey(this.logKey, namespace) },
      ],
      // Two witnesses with one key could be told two stories.
      replicas: 1,
      serviceName: identity.instance,
      volumes: { state: '/var/lib/witness' },
      claims: [
        {
          name: 'state',
          size: props.storage ?? '16Mi',
          ...(props.storageClass !== undefined && { storageClass: props.storageClass }),
        },
      ],
      resources: props.resources ?? { cpu: '10m', memory: '96Mi', memoryLimit: '192Mi' },
      terminationGraceSeconds: 15,
      probes: {
        readiness: { scheme: 'http', port: HEALTH, path: '/readyz', periodSeconds: 5 },
        liveness: { scheme: 'http', port: HEALTH, path: '/healthz', periodSeconds: 10 },
      },
    });
    this.network = witness.network;
  }

  /** Admits the log and gives it the address, the authority and the public key of the witness. */
  connect(client: PodNetwork): Connection {
    client.allowTo(this.network, [TLOG]);
    return {
      env: {
        LOG_ORIGIN: this.origin,
        WITNESS_NAME: this.witnessName,
        WITNESS_URL: this.url,
        WITNESS_CA_FILE: '/secrets/ca/ca.crt',
        WITNESS_PUBLIC_KEY_FILE: '/secrets/witness-key/public.pem',
      },
      secrets: [
        { path: '/secrets/witness-key', secret: this.#plan.publicKey(this.#key, client.namespace) },
        { path: '/secrets/ca', secret: this.#plan.authorityCertificate(client.namespace) },
      ],
    };
  }

  #environment() {
    return {
      PORT: String(TLOG),
      HEALTH_PORT: String(HEALTH),
      TLS_DIR: '/secrets/witness-tls',
      LOG_ORIGIN: this.origin,
      WITNESS_NAME: this.witnessName,
      LOG_PUBLIC_KEY_FILE: '/secrets/log-key/public.pem',
      WITNESS_KEY_FILE: '/secrets/witness-key/private.pem',
      STATE_DIR: '/var/lib/witness',
    };
  }
}
