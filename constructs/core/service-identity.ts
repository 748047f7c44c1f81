import { k8s } from 'cdk8s-plus-33';
import { Construct } from 'constructs';
import { type Identity, objectLabels } from './labels.ts';
import { placeOf } from './region-chart.ts';

/** What a pod may do with which objects of the Kubernetes API. */
export interface Rule {
  /** @default '' (the core group) */
  readonly apiGroup?: string;
  readonly resources: readonly string[];
  readonly verbs: readonly string[];
}

/** Options of {@link ServiceIdentity}. */
export interface ServiceIdentityProps extends Identity {
  /** Name of the ServiceAccount, Roles and RoleBindings. */
  readonly name: string;
  readonly rules: readonly Rule[];
  /** Namespaces in which the rules hold. @default its own */
  readonly namespaces?: readonly string[];
}

/** A ServiceAccount with rights in listed namespaces only; there is no ClusterRole. */
export class ServiceIdentity extends Construct {
  readonly name: string;

  constructor(scope: Construct, id: string, props: ServiceIdentityProps) {
    super(scope, id);
    this.name = props.name;
    const home = placeOf(this).namespace;
    const labels = objectLabels(this, props);
    new k8s.KubeServiceAccount(this, 'account', {
      metadata: { name: this.name, labels },
      automountServiceAccountToken: false,
    });
    for (const namespace of props.namespaces ?? [home]) this.#grant(namespace, home, labels, props.rules);
  }

  #grant(namespace: string, home: string, labels: Record<string, string>, rules: readonly Rule[]): void {
    const metadata = { name: this.name, namespace, labels };
    new k8s.KubeRole(this, `role-${namespace}`, {
      metadata,
      rules: rules.map(({ apiGroup = '', resources, verbs }) => ({
        apiGroups: [apiGroup],
        resources: [...resources],
        verbs: [...verbs],
      })),
    });
    new k8s.KubeRoleBinding(this, `binding-${namespace}`, {
      metadata,
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: this.name },
      subjects: [{ kind: 'ServiceAccount', name: this.name, namespace: home }],
    });
  }
}
